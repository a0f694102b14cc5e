/**
 * A process that is started to take over a disk, and goes no further than told:
 *
 *     bun scripted-successor.ts offer | prepared | yours | refuse | strange | go
 *
 * It ends behind what it has said or heard last; with `sleep` behind that, it stays instead and is silent.
 */
import { HandOver } from "../../src/upgrade/hand-over.ts";

const [end, then] = process.argv.slice(2);
const timeoutMs = 60_000;
const channel = new HandOver(Number(process.env.UBIBLK_UPGRADE_FD), "the one that serves");

await channel.expect("offer", { timeoutMs });
await leaveBehind("offer");
if (end === "strange") {
  channel.send({ kind: "built" });
  await leaveBehind("strange");
}
channel.send({ kind: "prepared", version: "9.9.9" });
await leaveBehind("prepared");
await channel.expect("yours", { timeoutMs });
await leaveBehind("yours");
if (end === "refuse") {
  channel.refuse("there is no room");
  await leaveBehind("refuse");
}
channel.send({ kind: "built" });
await channel.expect("go", { timeoutMs });
await leaveBehind("go");

async function leaveBehind(step: string): Promise<void> {
  if (step === end) {
    await Bun.sleep(then === "sleep" ? timeoutMs : 0);
    process.exit(1);
  }
}

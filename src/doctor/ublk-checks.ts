/** The ublk driver: only `ubiblk ublk` needs it, so its absence is no warning, and what it lacks is one. */

import { FEATURE } from "../formats/ublk.ts";
import { UblkControl } from "../ublk/control.ts";
import { KernelControlChannel } from "../ublk/control-channel.ts";
import { type ListedDevice, listDevices } from "../ublk/device-list.ts";
import type { Finding } from "./finding.ts";
import { operatingErrorText } from "./operating-error.ts";
import { systemText } from "./system-file.ts";

export async function* examineUblk(): AsyncGenerator<Finding> {
  let control: UblkControl;
  try {
    control = new UblkControl(KernelControlChannel.open());
  } catch (error) {
    yield absenceFinding(operatingErrorText(error), moduleState());
    return;
  }
  using _ = control;
  try {
    yield featureFinding(await control.features());
    yield* deviceFindings(await listDevices(control));
  } catch (error) {
    yield { check: "driver", verdict: "warn", found: operatingErrorText(error) };
  }
}

/** @param module of the kernel's modules; undefined when there is no list of them */
export function absenceFinding(message: string, module: "there" | "absent" | undefined): Finding {
  const check = "driver";
  switch (module) {
    case "there":
      return {
        check,
        verdict: "skip",
        found: `${message}; its module is there`,
        advice: "modprobe ublk_drv, and ublk_drv in /etc/modules-load.d; only ubiblk ublk needs it",
      };
    case "absent":
      return {
        check,
        verdict: "skip",
        found: "this kernel has no ublk driver",
        advice: "a kernel with CONFIG_BLK_DEV_UBLK (Debian 13); only ubiblk ublk needs it",
      };
    case undefined:
      return { check, verdict: "skip", found: message, advice: "only ubiblk ublk needs it" };
  }
}

/** @param features as the driver tells them */
export function featureFinding(features: number): Finding {
  const check = "driver";
  const has = (feature: number) => (features & feature) !== 0;
  if (!has(FEATURE.ioctlEncoding)) {
    const found = "too old: it does not know the commands that are used";
    return { check, verdict: "warn", found, advice: "Linux 6.5 or later" };
  }
  const recovery = has(FEATURE.userRecovery) && has(FEATURE.userRecoveryReissue);
  const parts = [
    recovery ? "devices can be recovered" : "devices cannot be recovered",
    has(FEATURE.autoBufferRegistration) ? "zero copy" : "no zero copy (Linux 6.16 has it)",
  ];
  return { check, verdict: "ok", found: parts.join(", ") };
}

export function* deviceFindings(devices: readonly ListedDevice[]): Generator<Finding> {
  const orphans = devices.filter(({ orphan }) => orphan);
  for (const { id, path, state } of orphans) {
    yield {
      check: "devices",
      verdict: "warn",
      found: `${path} is ${state}: nobody serves it`,
      advice: `ubiblk ublk --recover ${id}, or --delete ${id}`,
    };
  }
  if (orphans.length === 0) {
    const found = devices.length === 0 ? "none of ubiblk's" : `${devices.length}, all served`;
    yield { check: "devices", verdict: "ok", found };
  }
}

// --- internal ---

function moduleState(): "there" | "absent" | undefined {
  const folder = `/lib/modules/${systemText("/proc/sys/kernel/osrelease")}`;
  const lists = [systemText(`${folder}/modules.dep`), systemText(`${folder}/modules.builtin`)];
  if (lists.every((list) => list === undefined)) {
    return undefined;
  }
  return lists.some((list) => list?.includes("/ublk_drv.ko") === true) ? "there" : "absent";
}

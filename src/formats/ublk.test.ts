import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CONTROL_CODE,
  CONTROL_COMMAND_BYTES,
  DESCRIPTOR_BYTES,
  DEVICE_INFO_BYTES,
  decodeDeviceInfo,
  decodeParameters,
  descriptorsBytes,
  descriptorsOffset,
  encodeControlCommand,
  encodeDeviceInfo,
  encodeParameters,
  IO_CODE,
} from "./ublk.ts";

const INFO = {
  queues: 3,
  depth: 128,
  state: "quiesced",
  ioBytesMax: 1_048_576,
  id: 7,
  pid: 4711,
  flags: 0x8a,
  serverLow: 0x11223344,
  serverHigh: 0x55667788,
} as const;

const PARAMETERS = {
  attributes: 0x0c,
  logicalBlockShift: 9,
  physicalBlockShift: 12,
  optimalIoShift: 20,
  minimalIoShift: 12,
  ioSectorsMax: 2048,
  sectors: 0x1_0000_0003,
  discardGranularityBytes: 4096,
  discardSectorsMax: 4_194_304,
  writeZeroesSectorsMax: 65_536,
  memoryAlignBytes: undefined,
} as const;

/** The kernel's own header says where each field lies. */
const C_PROGRAM = `
#include <linux/ublk_cmd.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#define SHOW(name, value) printf("%s=%lu\\n", name, (unsigned long)(value))
static void bytes(const char *name, const void *memory, size_t length) {
    printf("%s=", name);
    for (size_t i = 0; i < length; i++) printf("%02x", ((const unsigned char *)memory)[i]);
    printf("\\n");
}
int main(void) {
    SHOW("control", sizeof(struct ublksrv_ctrl_cmd));
    SHOW("descriptor", sizeof(struct ublksrv_io_desc));
    SHOW("command", sizeof(struct ublksrv_io_cmd));
    struct ublksrv_ctrl_dev_info info = {.nr_hw_queues = 3, .queue_depth = 128, .state = UBLK_S_DEV_QUIESCED,
        .max_io_buf_bytes = 1048576, .dev_id = 7, .ublksrv_pid = 4711, .flags = 0x8a,
        .ublksrv_flags = 0x5566778811223344ULL};
    bytes("info", &info, sizeof(info));
    struct ublk_params parameters;
    memset(&parameters, 0, sizeof(parameters));
    parameters.types = UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD;
    parameters.basic = (struct ublk_param_basic){.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA,
        .logical_bs_shift = 9, .physical_bs_shift = 12, .io_opt_shift = 20, .io_min_shift = 12,
        .max_sectors = 2048, .dev_sectors = 0x100000003ULL};
    parameters.discard = (struct ublk_param_discard){.discard_granularity = 4096, .max_discard_sectors = 4194304,
        .max_write_zeroes_sectors = 65536, .max_discard_segments = 1};
    bytes("parameters", (const char *)&parameters + 4, 56); /* behind the length, which is of the header's age */
    struct ublksrv_ctrl_cmd command = {.dev_id = 9, .queue_id = (__u16)-1, .len = 64, .addr = 0x7f1234567000ULL,
        .data = {42}};
    bytes("commandBytes", &command, sizeof(command));
    return 0;
}
`;

function valuesOfHeader(): ReadonlyMap<string, string> {
  const folder = mkdtempSync(join(tmpdir(), "ublk-header-"));
  try {
    const program = join(folder, "show");
    writeFileSync(`${program}.c`, C_PROGRAM);
    const compiled = Bun.spawnSync(["gcc", "-o", program, `${program}.c`]);
    expect(compiled.stderr.toString()).toBe("");
    const lines = Bun.spawnSync([program]).stdout.toString().trim().split("\n");
    return new Map(lines.map((line) => [line.split("=")[0] ?? "", line.split("=")[1] ?? ""]));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("structures: the bytes are those that the kernel's header makes", () => {
  const values = valuesOfHeader();
  expect(values.get("control")).toBe(String(CONTROL_COMMAND_BYTES));
  expect(values.get("descriptor")).toBe(String(DESCRIPTOR_BYTES));
  expect(values.get("command")).toBe("16");
  expect(Buffer.from(encodeDeviceInfo(INFO)).toString("hex")).toBe(values.get("info") ?? "");
  const parameters = Buffer.from(encodeParameters(PARAMETERS)).subarray(4, 60).toString("hex");
  expect(parameters).toBe(values.get("parameters") ?? "");
  const command = { device: 9, lengthBytes: 64, address: 0x7f1234567000, data: 42 };
  expect(Buffer.from(encodeControlCommand(command)).toString("hex")).toBe(
    values.get("commandBytes") ?? "",
  );
});

test("device info: what was encoded is decoded", () => {
  expect(decodeDeviceInfo(encodeDeviceInfo(INFO))).toEqual(INFO);
});

test("device info: a state of a newer kernel is unknown", () => {
  const bytes = encodeDeviceInfo(INFO);
  expect(bytes.length).toBe(DEVICE_INFO_BYTES);
  bytes[4] = 9;
  expect(decodeDeviceInfo(bytes).state).toBe("unknown");
});

test("parameters: memory alignment goes as a mask, behind what old kernels know", () => {
  const bytes = encodeParameters({ ...PARAMETERS, memoryAlignBytes: 512 });
  const view = new DataView(bytes.buffer);
  expect(view.getUint32(4, true)).toBe(1 | 2 | 16);
  expect(view.getUint32(108, true)).toBe(511);
  const { attributes, sectors } = PARAMETERS;
  expect(decodeParameters(bytes)).toEqual({ attributes, sectors });
});

test("parameters: a disk without discard and write zeroes names neither", () => {
  const bytes = encodeParameters({ ...PARAMETERS, discardSectorsMax: 0, writeZeroesSectorsMax: 0 });
  expect(new DataView(bytes.buffer).getUint32(4, true)).toBe(1);
});

test("command codes: they are encoded as ioctl numbers", () => {
  expect(CONTROL_CODE.getFeatures).toBe(0x80207513);
  expect(CONTROL_CODE.addDevice).toBe(0xc0207504);
  expect(IO_CODE.fetch).toBe(0xc0107520);
  expect(IO_CODE.commitAndFetch).toBe(0xc0107521);
});

test("descriptors: those of a queue begin where the largest queue before it would end", () => {
  expect(descriptorsBytes(64)).toBe(4096);
  expect(descriptorsBytes(4096)).toBe(98_304);
  expect(descriptorsOffset(2)).toBe(196_608);
});

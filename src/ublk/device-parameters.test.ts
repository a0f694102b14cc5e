import { expect, test } from "bun:test";
import { ATTRIBUTE, FEATURE } from "../formats/ublk.ts";
import { deviceParameters, mayCopyNothing, type ParameterDisk } from "./device-parameters.ts";

const DISK: ParameterDisk = {
  sectors: 4096,
  blockBytes: 512,
  physicalBlockBytes: 4096,
  optimalIoBytes: 0,
  memoryAlignBytes: 512,
  discardUnitBytes: 4096,
  isReadOnly: false,
  isNull: false,
  isWriteThrough: false,
  isDiscardOffered: true,
  cipherContext: 0,
  stripes: undefined,
};
const MIB = 2 ** 20;

test("a disk with a cache announces it, and writes that force their data through", () => {
  const { attributes } = deviceParameters(DISK, MIB, false);
  expect(attributes).toBe(ATTRIBUTE.volatileCache | ATTRIBUTE.fua);
});

test("a disk that writes through has no cache; a read-only one takes nothing at all", () => {
  expect(deviceParameters({ ...DISK, isWriteThrough: true }, MIB, false).attributes).toBe(0);
  const readOnly = { ...DISK, isReadOnly: true, isDiscardOffered: false };
  expect(deviceParameters(readOnly, MIB, false)).toMatchObject({
    attributes: ATTRIBUTE.readOnly,
    discardSectorsMax: 0,
    writeZeroesSectorsMax: 0,
  });
});

test("sectors stay 512 bytes on a medium of larger blocks, which are its physical ones", () => {
  const parameters = deviceParameters({ ...DISK, blockBytes: 4096 }, MIB, false);
  expect(parameters).toMatchObject({ logicalBlockShift: 9, physicalBlockShift: 12 });
});

test("the best length of I/O is the disk's own, a power of two of at most what a request has", () => {
  const shiftOf = (optimalIoBytes: number) =>
    deviceParameters({ ...DISK, optimalIoBytes }, MIB, false).optimalIoShift;
  expect([0, 65_536, 98_304, 16 * MIB].map(shiftOf)).toEqual([12, 16, 16, 20]);
});

test("memory has to be aligned only where the disk's I/O goes to it directly", () => {
  expect(deviceParameters(DISK, MIB, true).memoryAlignBytes).toBe(512);
  expect(deviceParameters({ ...DISK, memoryAlignBytes: 1 }, MIB, true).memoryAlignBytes).toBe(4);
  expect(deviceParameters(DISK, MIB, false).memoryAlignBytes).toBeUndefined();
});

test("nothing is copied only where nothing here has to see the data", () => {
  const all = FEATURE.autoBufferRegistration;
  expect(mayCopyNothing(DISK, all, "io_uring")).toBe(true);
  expect(mayCopyNothing(DISK, 0, "io_uring")).toBe(false);
  expect(mayCopyNothing(DISK, all, "sync")).toBe(false);
  expect(mayCopyNothing({ ...DISK, cipherContext: 1 }, all, "io_uring")).toBe(false);
  expect(mayCopyNothing({ ...DISK, blockBytes: 4096 }, all, "io_uring")).toBe(false);
  expect(mayCopyNothing({ ...DISK, isNull: true }, all, "io_uring")).toBe(false);
});

/** A thread of the cipher tests: enciphers with keys that the main thread expanded, as queue workers do. */
import { parentPort, workerData } from "node:worker_threads";
import { XtsCipher } from "../../src/disk/cipher.ts";

const { contextAddress, source, target } = workerData;
const cipher = XtsCipher.attach(contextAddress);
parentPort?.postMessage(cipher.encrypt(9, 2, source, target));

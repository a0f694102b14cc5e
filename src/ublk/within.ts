/** Work that the kernel may never end. */
import { UbiError } from "../errors.ts";

/** @throws UbiError E_UBLK_DEVICE after `limitMs` */
export async function within<T>(work: Promise<T>, limitMs: number, message: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new UbiError("E_UBLK_DEVICE", message)), limitMs);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

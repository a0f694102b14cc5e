/** Descriptors that come with a message: whoever takes one removes it from the list, the caller closes the rest. */
import { assert, UbiError } from "../errors.ts";
import { requestName } from "../formats/vhost-user.ts";

/** @throws UbiError E_PROTOCOL when there is none, or more than one */
export function oneDescriptor(request: number, descriptors: readonly number[]): number {
  const [fd, ...others] = descriptors;
  if (fd === undefined || others.length > 0) {
    const count = descriptors.length;
    throw new UbiError(
      "E_PROTOCOL",
      `${requestName(request)}: ${count} descriptors instead of one`,
    );
  }
  return fd;
}

/** Takes the one descriptor of a message out of the list: it now belongs to the ring. */
export function takeDescriptor(request: number, descriptors: number[]): number {
  const fd = oneDescriptor(request, descriptors);
  descriptors.length = 0;
  assert(fd >= 0, "received descriptors are valid");
  return fd;
}

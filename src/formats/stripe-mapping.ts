/** stripe-mapping */
export const HASH_BYTES = 32;
export type StripeKind = "absent" | "zero" | "stored";

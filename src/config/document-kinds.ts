/** The kinds of documents, each named after its main section. */
import { ArchiveDocument, DeviceDocument, ServerDocument, TargetDocument } from "./schema.ts";

export const DOCUMENT_KINDS = ["device", "target", "archive", "server"] as const;

export type DocumentKind = (typeof DOCUMENT_KINDS)[number];

export const DOCUMENT_SCHEMAS = {
  device: DeviceDocument,
  target: TargetDocument,
  archive: ArchiveDocument,
  server: ServerDocument,
} as const;

/** The rules of each kind of document: its schema, and what holds between its keys and sections. */
import { allowedCpus } from "./allowed-cpus.ts";
import type { Findings } from "./findings.ts";
import type { LoadRules, RuleContext } from "./load-document.ts";
import { checkMetricsAddress } from "./metrics-rules.ts";
import {
  ArchiveDocument,
  DeviceDocument,
  KeyDocument,
  ServerDocument,
  TargetDocument,
} from "./schema.ts";
import {
  checkArchiveStore,
  checkDevice,
  checkLimits,
  checkQueueSize,
  checkRemote,
  checkServer,
  checkStripeSource,
  checkTuning,
  checkUblkTuning,
} from "./section-rules.ts";

/** Keys that a document may lack, but a program may need. */
type DemandedKey = "vhost_socket" | "metadata_path" | "rpc_socket";

export interface DeviceConfigOptions {
  /** Keys of `[device]` that the program cannot do without: checked before any secret is read. */
  readonly require?: readonly DemandedKey[];
  /** The front end that will serve the device: keys that it ignores are warned about. */
  readonly backend?: "vhost" | "ublk";
}

export const deviceRules = (options: DeviceConfigOptions): LoadRules<typeof DeviceDocument> => ({
  schema: DeviceDocument,
  check: (context) => checkDeviceDocument(context, options),
});

/** Of a program that needs only `[encryption]`: `[device]` may be absent. */
export const KEY_RULES: LoadRules<typeof KeyDocument> = {
  schema: KeyDocument,
  check: (context) => checkSharedRules(context),
};

export const TARGET_RULES: LoadRules<typeof TargetDocument> = {
  schema: TargetDocument,
  unresolvedSections: ["target"],
  check: ({ sections: { target }, gate, findings }) => {
    if (target !== undefined) {
      checkArchiveStore("target", target, gate, findings);
      warnIgnored("target", { autofetch: target.autofetch }, findings);
      // Whether they are needed depends on the disk and on the command line.
      gate.allows("allow_plain_archive", "target");
      if (target.archive_kek === undefined) {
        gate.allows("allow_archive_keys_in_clear", "target");
      }
    }
  },
};

export const ARCHIVE_RULES: LoadRules<typeof ArchiveDocument> = {
  schema: ArchiveDocument,
  check: ({ sections: { archive }, gate, findings }) => {
    if (archive !== undefined) {
      checkArchiveStore("archive", archive, gate, findings);
      warnIgnored("archive", { autofetch: archive.autofetch }, findings);
    }
  },
};

export const SERVER_RULES: LoadRules<typeof ServerDocument> = {
  schema: ServerDocument,
  check: (context) => {
    const { gate, findings } = context;
    const { server } = context.sections;
    checkMetricsOf("server", context);
    if (server !== undefined) {
      checkRemote("server", server, gate, findings);
      checkServer(server, findings);
      warnIgnored(
        "server",
        { autofetch: server.autofetch, connections: server.connections !== 16 },
        findings,
      );
    }
  },
};

// --- internal ---

type SingleValues = Pick<RuleContext<typeof DeviceDocument>, "fitting" | "gate" | "findings">;

function checkMetricsOf(section: string, { fitting, gate, findings }: SingleValues): void {
  const address = fitting(section, "metrics_address");
  if (typeof address === "string") {
    checkMetricsAddress(section, address, gate, findings);
  }
}

function checkSharedRules(
  context: Pick<RuleContext<typeof DeviceDocument>, "sections"> & SingleValues,
): void {
  const { sections, fitting, gate, findings } = context;
  const queueSize = fitting("tuning", "queue_size");
  if (typeof queueSize === "number") {
    checkQueueSize(queueSize, findings);
  }
  checkMetricsOf("device", context);
  if (sections.device !== undefined) {
    checkDevice(sections.device, findings);
  }
  if (sections.tuning !== undefined) {
    checkTuning(sections.tuning, findings);
  }
  if (sections.limits !== undefined) {
    checkLimits(sections.limits, findings);
  }
  if (sections.stripe_source !== undefined) {
    checkStripeSource(sections.stripe_source, gate, findings);
  }
}

function checkDeviceDocument(
  context: RuleContext<typeof DeviceDocument>,
  options: DeviceConfigOptions,
): void {
  const { sections, isPresent, gate, findings } = context;
  checkSharedRules(context);
  if (!isPresent("encryption") && !gate.allows("allow_unencrypted_disk", "device.data_path")) {
    findings.error("E_CONFIG_DANGER", ["encryption"], ENCRYPTION_REQUIRED);
  }
  if (sections.device !== undefined) {
    for (const key of options.require ?? []) {
      if (sections.device[key] === undefined) {
        findings.error("E_CONFIG", ["device", key], "missing: this command needs it");
      }
    }
    if (isPresent("stripe_source") && sections.device.metadata_path === undefined) {
      findings.error("E_CONFIG", ["device", "metadata_path"], METADATA_REQUIRED);
    }
  }
  if (sections.device?.track_written === true && sections.device.metadata_path === undefined) {
    const message = "has no effect without device.metadata_path";
    if (options.backend === undefined) {
      findings.warn(["device", "track_written"], message);
    } else {
      findings.error("E_CONFIG", ["device", "track_written"], `${message}; add it`);
    }
  }
  if (options.backend !== undefined) {
    checkBackend(options.backend, context);
  }
}

/** Warns of what a front end ignores, and of CPUs that it cannot use. */
function checkBackend(
  backend: "vhost" | "ublk",
  { sections, findings }: RuleContext<typeof DeviceDocument>,
): void {
  const { tuning, device } = sections;
  if (backend === "ublk") {
    const isSet = {
      poll_timeout_us: (tuning?.poll_timeout_us ?? 1000) !== 1000,
      seg_size_max: (tuning?.seg_size_max ?? 65_536) !== 65_536,
      seg_count_max: (tuning?.seg_count_max ?? 4) !== 4,
    };
    warnIgnored("tuning", isSet, findings);
    warnIgnored("device", { vhost_socket: device?.vhost_socket !== undefined }, findings);
    if (tuning !== undefined) {
      checkUblkTuning(tuning, findings);
    }
  }
  if (tuning?.cpus !== undefined) {
    const allowed = allowedCpus();
    const absent = tuning.cpus.filter((cpu) => allowed !== undefined && !allowed.has(cpu));
    if (absent.length > 0) {
      const message = `this process may not run on CPU ${absent.join(", ")}: not pinned there`;
      findings.warn(["tuning", "cpus"], message);
    }
  }
}

function warnIgnored(
  section: string,
  isSet: Readonly<Record<string, boolean>>,
  findings: Findings,
): void {
  for (const [key, isIgnored] of Object.entries(isSet)) {
    if (isIgnored) {
      findings.warn([section, key], "has no effect here");
    }
  }
}

const ENCRYPTION_REQUIRED =
  "missing: the disk would not be encrypted; add it, or set danger_zone.enabled with " +
  "danger_zone.allow_unencrypted_disk";
const METADATA_REQUIRED =
  "missing: without it stripe_source is not used and the guest would see the bare disk";

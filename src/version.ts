/** The version of everything: package.json's. */
import packageJson from "../package.json" with { type: "json" };

export const VERSION: string = packageJson.version;

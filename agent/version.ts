/** Set by the bundler from package.json. */
declare const STUBDOM_VERSION: string | undefined;

export const version: string = typeof STUBDOM_VERSION === "string" ? STUBDOM_VERSION : "development";

/** Where things are in the checkout. */

import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

/** The project's top directory. */
export const PROJECT = dirname(dirname(fileURLToPath(import.meta.url)));

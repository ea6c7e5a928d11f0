// What the released provider made of its options and of the environment.

import { FlagdProvider } from '@openfeature/flagd-provider';

const NAMES = { resolver: 'resolverType' };
const ASKED = 'defaultAuthority';

export function optionName(name) {
  return NAMES[name] ?? name;
}

/**
 * The package does not export its configuration. It asks it for an authority, which no scenario sets: whatever is asked then is the
 * configuration, in both modes.
 */
export async function configuration(options) {
  let found;
  Object.defineProperty(Object.prototype, ASKED, {
    configurable: true,
    get() {
      found ??= this;
      return undefined;
    },
    // gRPC has a property of that name, which is its own.
    set(value) {
      Object.defineProperty(this, ASKED, { value, writable: true, enumerable: true, configurable: true });
    },
  });
  try {
    await new FlagdProvider(options).onClose();
  } finally {
    delete Object.prototype[ASKED];
  }
  if (!found) throw new Error(`the provider did not ask its configuration for ${ASKED}`);
  return { ...found };
}

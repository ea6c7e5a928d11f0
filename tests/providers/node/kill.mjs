// A kill reaches the released provider of flagd in RPC mode, which keeps answers. Usage: kill.mjs BINARY

import { FlagdProvider } from '@openfeature/flagd-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/server-sdk';
import { kills } from './dev.mjs';

await kills('node-kill', process.argv[2], async (dev, changed) => {
  const [host, port] = dev.sidecar.split(':');
  const client = OpenFeature.getClient();
  client.addHandler(ProviderEvents.ConfigurationChanged, changed);
  await OpenFeature.setProviderAndWait(new FlagdProvider({ resolverType: 'rpc', host, port: Number(port), deadlineMs: 5_000, cache: 'lru' }));
  return {
    ask: (flag) => client.getStringDetails(flag, 'of the code', {}),
    cached: 'CACHED',
    names: true,
    told: true,
    end: () => OpenFeature.close(),
  };
});

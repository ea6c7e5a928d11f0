// A kill reaches the released provider of flagd: in RPC mode, where it keeps answers, and in process. Usage: kill.mjs SUITE BINARY

import { FlagdProvider } from '@openfeature/flagd-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/server-sdk';
import { kills } from './dev.mjs';

const [, , suite, binary] = process.argv;
const RPC = { resolverType: 'rpc', cache: 'lru', server: 'sidecar', cached: 'CACHED', told: true };
const IN_PROCESS = { resolverType: 'in-process', server: 'sync' };
const { server, cached, told, ...options } = suite === 'node-kill' ? RPC : IN_PROCESS;

await kills(suite, binary, async (dev, changed) => {
  const [host, port] = dev[server].split(':');
  const client = OpenFeature.getClient();
  client.addHandler(ProviderEvents.ConfigurationChanged, changed);
  await OpenFeature.setProviderAndWait(new FlagdProvider({ ...options, host, port: Number(port), deadlineMs: 5_000 }));
  return {
    ask: (flag) => client.getStringDetails(flag, 'of the code', {}),
    cached,
    names: true,
    told,
    end: () => OpenFeature.close(),
  };
});

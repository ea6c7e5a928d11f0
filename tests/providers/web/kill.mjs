// A kill reaches the released providers of a page: flagd's by its stream, OFREP's by SSE. Usage: kill.mjs SUITE BINARY

import { FlagdWebProvider } from '@openfeature/flagd-web-provider';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';
import { EventSource } from 'eventsource';
import { kills } from '../node/dev.mjs';

const [, , suite, binary] = process.argv;
globalThis.EventSource = EventSource;

const PROVIDERS = {
  'web-kill': ({ sidecar }) => new FlagdWebProvider({ host: '127.0.0.1', port: Number(sidecar.split(':')[1]), tls: false, maxRetries: -1 }),
  'web-ofrep-kill': ({ ofrep }) => new OFREPWebProvider({ baseUrl: `http://${ofrep}`, cacheMode: 'disabled' }),
};

await kills(suite, binary, async (dev, changed) => {
  const client = OpenFeature.getClient();
  client.addHandler(ProviderEvents.ConfigurationChanged, changed);
  await OpenFeature.setProviderAndWait(PROVIDERS[suite](dev));
  return {
    ask: async (flag) => client.getStringDetails(flag, 'of the code'),
    // A page holds everything and says what the server said.
    cached: 'STATIC',
    names: suite === 'web-ofrep-kill',
    told: suite === 'web-kill',
    end: () => OpenFeature.close(),
  };
});

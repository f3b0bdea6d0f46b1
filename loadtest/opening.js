// The opening of a sale, by k6: arrivals climb within a second to a peak, stay there, and fall off.
//
// Open loop: k6 starts each buyer when it is due, however slow the server is. Every buyer is somebody else, asks
// once for one unit, and one in ten presses the button again (the same key).
//
// Passes if: exactly STOCK buyers won; every answer was 201, 200 (replay) or 409 sold_out; a replay named the same
// reservation; the 99th percentile of refusals stayed below 1 s.
//
//   BASE    the public listener, http://127.0.0.1:8080
//   SECRET  buyer_jwt_secret of <data>/keys.toml
//   SALE, ITEM, STOCK   a published, open sale, its one item, its units
//   PEAK    buyers per second (default 1000);  HOLD  how long (default 8s)
//   SUMMARY a file for the figures as JSON
//
//   cargo xtask load        starts a server, publishes the sale, runs this and then audits the books

import http from 'k6/http';
import exec from 'k6/execution';
import { hmac } from 'k6/crypto';
import { b64encode } from 'k6/encoding';
import { Counter, Trend } from 'k6/metrics';

const base = __ENV.BASE || 'http://127.0.0.1:8080';
const stock = Number(__ENV.STOCK);
const peak = Number(__ENV.PEAK || 1000);
const target = `${base}/v1/sales/${__ENV.SALE}/purchases`;
const body = JSON.stringify({ item: __ENV.ITEM, quantity: 1 });

const reserved = new Counter('reserved');
const replayed = new Counter('replayed');
const soldOut = new Counter('sold_out');
const unexpected = new Counter('unexpected');
const winnerMs = new Trend('winner_ms', true);
const refusalMs = new Trend('refusal_ms', true);

http.setResponseCallback(http.expectedStatuses(200, 201, 409));

export const options = {
  scenarios: {
    opening: {
      executor: 'ramping-arrival-rate',
      startRate: Math.ceil(peak / 10),
      timeUnit: '1s',
      preAllocatedVUs: 200,
      maxVUs: 1000,
      stages: [
        { target: peak, duration: '1s' },
        { target: peak, duration: __ENV.HOLD || '8s' },
        { target: Math.ceil(peak / 10), duration: '2s' },
      ],
    },
  },
  thresholds: {
    http_req_failed: ['rate==0'],
    reserved: [`count==${stock}`],
    sold_out: ['count>0'],
    unexpected: ['count==0'],
    refusal_ms: ['p(99)<1000'],
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  discardResponseBodies: false,
};

const header = b64encode('{"alg":"HS256","typ":"JWT"}', 'rawurl');

function token(buyer) {
  const claims = JSON.stringify({ sub: buyer, exp: Math.floor(Date.now() / 1000) + 3600 });
  const signed = `${header}.${b64encode(claims, 'rawurl')}`;
  return `${signed}.${hmac('sha256', __ENV.SECRET, signed, 'base64rawurl')}`;
}

function complain(what, response) {
  unexpected.add(1);
  console.error(`${what}: ${response.status} ${response.error || ''} ${response.body}`);
}

export default function () {
  const number = exec.scenario.iterationInTest;
  const buyer = `k6-${number}`;
  const params = {
    headers: {
      Authorization: `Bearer ${token(buyer)}`,
      'Idempotency-Key': `${buyer}-key`,
      'Content-Type': 'application/json',
    },
  };
  const first = http.post(target, body, params);
  if (first.status === 409 && first.json('outcome') === 'sold_out') {
    soldOut.add(1);
    refusalMs.add(first.timings.duration);
    return;
  }
  if (first.status !== 201) {
    complain('a first try', first);
    return;
  }
  reserved.add(1);
  winnerMs.add(first.timings.duration);
  if (number % 10 === 0) {
    const again = http.post(target, body, params);
    const isSame = again.status === 200
      && again.headers['Idempotency-Replayed'] === 'true'
      && again.json('reservation_id') === first.json('reservation_id');
    if (isSame) {
      replayed.add(1);
    } else {
      complain('the same key again', again);
    }
  }
}

export function handleSummary(data) {
  const broken = [];
  for (const [name, metric] of Object.entries(data.metrics)) {
    for (const [rule, result] of Object.entries(metric.thresholds || {})) {
      if (!result.ok) {
        broken.push(`threshold broken: ${name} ${rule}, was ${JSON.stringify(metric.values)}`);
      }
    }
  }
  const out = { stdout: broken.map((line) => `${line}\n`).join('') };
  if (__ENV.SUMMARY) {
    out[__ENV.SUMMARY] = JSON.stringify(data);
  }
  return out;
}

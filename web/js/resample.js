// Another rate for samples: a windowed sinc, as the server's. Browsers resample too, but one that was measured takes a
// twentieth of 5 kHz away on the way from 48 to 16 kHz, and what plays a buffer at another rate lets all above 8 kHz back in.

/** Zero crossings of the sinc on each side; more of them make the edge of the filter steeper. */
const CROSSINGS = 12;
/** Where the edge is, as a share of what the lower rate can hold. */
const ROLLOFF = 0.95;

/** `samples` of `fromHz` as `⌈n·toHz/fromHz⌉` samples of `toHz`. */
export function resample(samples, fromHz, toHz) {
  if (fromHz === toHz) return samples;
  const common = greatestCommonDivisor(fromHz, toHz);
  const [from, to] = [fromHz / common, toHz / common];
  const phases = Array.from({ length: to }, (_, phase) => filterOf((phase * from) % to / to, Math.min(1, to / from) * ROLLOFF));
  const out = new Float32Array(Math.ceil((samples.length * to) / from));
  for (let index = 0; index < out.length; index += 1) {
    const taps = phases[index % to];
    const first = Math.floor((index * from) / to) - taps.length / 2 + 1;
    const end = Math.min(taps.length, samples.length - first);
    let sum = 0;
    for (let tap = Math.max(0, -first); tap < end; tap += 1) sum += taps[tap] * samples[first + tap];
    out[index] = sum;
  }
  return out;
}

/** Weights of the samples around a place that lies `fraction` of a sample after the one in the middle; `edge` is the filter's, as a share of what the samples hold. */
function filterOf(fraction, edge) {
  const half = Math.ceil(CROSSINGS / edge);
  const taps = Float64Array.from({ length: 2 * half }, (_, tap) => {
    const at = (tap - half + 1 - fraction) * edge;
    if (Math.abs(at) >= CROSSINGS) return 0;
    const sinc = at === 0 ? 1 : Math.sin(Math.PI * at) / (Math.PI * at);
    return sinc * Math.cos((Math.PI * at) / (2 * CROSSINGS)) ** 2;
  });
  // A constant stays what it is.
  const sum = taps.reduce((total, weight) => total + weight, 0);
  return taps.map((weight) => weight / sum);
}

const greatestCommonDivisor = (a, b) => (b === 0 ? a : greatestCommonDivisor(b, a % b));

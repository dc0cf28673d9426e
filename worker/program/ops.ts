// The op table. It is the only place that says what every op reads, writes, needs and computes.
// After a change, `npm run generate` writes the C++ side anew.
//
// Notation (row-major, the last index runs fastest):
//   B sequences, T positions, N = B*T local tokens, d model width, H heads, V vocabulary,
//   E experts in the world, k = topK, W = world size, P = expert-parallel size,
//   C = capacity: the most rows that one rank may send to one expert (rows are not padded to it),
//   L = E/P experts on this rank. The EP group of rank r is the ranks floor(r/P)*P to +P-1.
//   kept[q][e] = min(allCounts[q][e], C): the rows that rank q really sends to expert e.
//   There are at most N*k routed rows before dispatch, sum_e kept[rank][e], and at most P*N*k after
//   dispatch, the sum of kept over the EP group and the local experts.
//
// Routed rows before dispatch are in order of global expert, then slot:
//   row(n, i) = sum_{e' < expert[n,i]} kept[rank][e'] + slot[n,i].
// After dispatch they are in order of local expert, then source rank in the EP group, then slot,
// without gaps.
//
// Chunks: of the K rows from source rank q to expert e, chunk i of c is slots floor(K*i/c) to
// floor(K*(i+1)/c) - 1, both before and after dispatch. A row has the same place with any number of
// chunks, so the ops that follow need not know of them.
//
// Sums are always taken in f32. With attribute accumulate = 1, an op adds to its first output
// instead of overwriting it.

import type { OpSpec } from './op-spec.ts'
import {
  ADDED,
  ALL_COUNTS,
  ALL_COUNTS_IN,
  act,
  activation,
  any,
  CHOICES,
  COEFFICIENTS,
  COUNTS_IN,
  comm,
  compute,
  EXPERT_IN,
  EXPERT_WEIGHT,
  f32,
  HEAD_RULES,
  HEADS,
  i32,
  LINEAR_WORK,
  LOCAL_EXPERTS,
  LOGITS,
  LSE,
  narrow,
  OPTIONAL,
  POSITIONS,
  QKV,
  ROUTE,
  ROUTED,
  ROUTED_IN_CHUNKS,
  ROUTER_WORK,
  ROWS,
  SCORES,
  SENT,
  SHARED_HEADS,
  SLOT_IN,
  TABLE,
  TOKENS_IN,
  WEIGHT,
  wide,
} from './op-words.ts'

export const OPS = {
  // x[n] = wte[tokens[b,t]] (+ wpe[t]). tokens: i32 [B, T+1], of which the first T columns are the
  // inputs and the last T the targets. wte: [V, d].
  embedding: compute({
    inputs: [TOKENS_IN, f32('wte', TABLE), f32('wpe', ['sequence', 'dim'], OPTIONAL)],
    outputs: [act('x', POSITIONS)],
    attrs: ['batch', 'sequence', 'dim', 'vocabulary'],
  }),
  embedding_backward: compute({
    inputs: [TOKENS_IN, act('dx', POSITIONS)],
    outputs: [f32('dwte', TABLE, ADDED), f32('dwpe', ['sequence', 'dim'], { ...ADDED, ...OPTIONAL })],
    attrs: ['batch', 'sequence', 'dim', 'vocabulary'],
  }),

  // y = (x - mean) * rstd * gamma + beta over the last axis; epsilon is 1e-5. mean, rstd: [rows].
  layernorm: compute({
    inputs: [act('x', ROWS), f32('gamma', 'dim'), f32('beta', 'dim')],
    outputs: [act('y', ROWS), f32('mean', 'rows'), f32('rstd', 'rows')],
    attrs: ['rows', 'dim'],
  }),
  layernorm_backward: compute({
    inputs: [act('dy', ROWS), act('x', ROWS), f32('gamma', 'dim'), f32('mean', 'rows'), f32('rstd', 'rows')],
    outputs: [act('dx', ROWS), f32('dgamma', 'dim', ADDED), f32('dbeta', 'dim', ADDED)],
    attrs: ['rows', 'dim', 'accumulate'],
  }),
  // y = x * rstd * gamma, rstd = 1 / sqrt(mean(x^2) + 1e-5) (arXiv 1910.07467). rstd: [rows].
  rmsnorm: compute({
    inputs: [act('x', ROWS), f32('gamma', 'dim')],
    outputs: [act('y', ROWS), f32('rstd', 'rows')],
    attrs: ['rows', 'dim'],
  }),
  rmsnorm_backward: compute({
    inputs: [act('dy', ROWS), act('x', ROWS), f32('gamma', 'dim'), f32('rstd', 'rows')],
    outputs: [act('dx', ROWS), f32('dgamma', 'dim', ADDED)],
    attrs: ['rows', 'dim', 'accumulate'],
  }),

  // y[rows, out] = x[rows, in] w[out, in]^T (+ b) (+ residual[rows, out]).
  linear: compute({
    inputs: [
      act('x', ['rows', 'in']),
      act('w', WEIGHT),
      act('b', 'out', { when: { attr: 'bias', is: 1 } }),
      act('residual', ['rows', 'out'], OPTIONAL),
    ],
    outputs: [act('y', ['rows', 'out'])],
    attrs: ['rows', 'in', 'out', 'bias'],
    work: LINEAR_WORK,
  }),
  linear_dgrad: compute({
    inputs: [act('dy', ['rows', 'out']), act('w', WEIGHT)],
    outputs: [act('dx', ['rows', 'in'])],
    attrs: ['rows', 'in', 'out', 'accumulate'],
    work: LINEAR_WORK,
  }),
  linear_wgrad: compute({
    inputs: [act('dy', ['rows', 'out']), act('x', ['rows', 'in'])],
    outputs: [f32('dw', WEIGHT, ADDED), f32('db', 'out', { ...ADDED, ...OPTIONAL })],
    attrs: ['rows', 'in', 'out'],
    work: LINEAR_WORK,
  }),

  // Causal softmax(q k^T / sqrt(d/H)) v. There are KV = keyValueHeads heads of keys and values,
  // each shared by H/KV consecutive query heads (arXiv 2305.13245). qkv: [N, (H + 2 KV) d/H] as q |
  // k | v, heads of d/H values each. lse: [B, H, T], the log-sum-exp of the scaled scores.
  attention: compute({
    inputs: [act('qkv', QKV)],
    outputs: [act('o', POSITIONS), f32('lse', LSE)],
    attrs: HEADS,
    rules: HEAD_RULES,
    work: [2, SCORES], // half of the scores are masked
  }),
  attention_backward: compute({
    inputs: [act('do', POSITIONS), act('qkv', QKV), act('o', POSITIONS), f32('lse', LSE)],
    outputs: [act('dqkv', QKV)],
    attrs: HEADS,
    rules: HEAD_RULES,
    work: [5, SCORES],
  }),
  // Rotates q and k of position t in place: values j and j + d/2H of a head by the angle t *
  // base^(-2jH/d) (arXiv 2104.09864). With inverse = 1 the angle is negative, which makes the op
  // its own gradient.
  rope: compute({
    inputs: [],
    outputs: [act('qkv', QKV, ADDED)],
    attrs: [...HEADS, 'base', 'inverse'],
    rules: [SHARED_HEADS, { attr: 'dim', multipleOf: [2, 'heads'] }],
  }),

  // The tanh approximation, as in GPT-2, over rows * dim elements; with allCounts, over this rank's
  // routed rows after dispatch, which are at most `rows`.
  gelu: activation([narrow('x')], narrow('y')),
  gelu_backward: activation([narrow('dy'), narrow('x')], narrow('dx')),
  // y = silu(g) * u, where x[row] = g | u, each dim wide (arXiv 2002.05202). The rows are those of
  // gelu.
  swiglu: activation([wide('x')], narrow('y')),
  swiglu_backward: activation([narrow('dy'), wide('x')], wide('dx')),

  // probs[N,E] = softmax(x w^T) in f32, before the choice; expert[N,k] are the k largest, and of
  // equal ones the lower index; weight[N,k] are their probs, renormalised to sum 1 if k = 2;
  // counts[e] are the choices of e before any is dropped; slot[n,i] is the place among the choices
  // of that expert, counted over i = 0 of all tokens in token order, then i = 1, and -1 from C on.
  // lse[n] is the log-sum-exp of the logits. taken[n]: an expert that token n may not choose
  // (DGMoE).
  router: compute({
    inputs: [act('x', ROWS), f32('w', ['experts', 'dim']), i32('taken', 'rows', OPTIONAL)],
    outputs: [
      f32('probs', ['rows', 'experts']),
      i32('expert', CHOICES),
      f32('weight', CHOICES),
      i32('slot', CHOICES),
      i32('counts', 'experts'),
      f32('lse', 'rows', OPTIONAL),
    ],
    attrs: ROUTE,
    rules: [{ attr: 'topK', atMost: { minus: ['experts', { given: 'taken' }] } }],
    work: ROUTER_WORK,
  }),
  // From dweight (0 for a dropped choice) through renormalisation and softmax, plus the balance
  // loss
  //   auxCoefficient * E * sum_e f_e P_e,
  //   f_e = sum_q allCounts[q][e] / (W*N*k)  (a constant),  P_e = sum_n probs[n,e] / (W*N),
  // plus, with lse, the router's z-loss (arXiv 2202.08906, eq. 5)
  //   zCoefficient * sum_n lse[n]^2 / (W*N).
  router_backward: compute({
    inputs: [
      f32('dweight', CHOICES),
      f32('probs', ['rows', 'experts']),
      EXPERT_IN,
      f32('weight', CHOICES),
      SLOT_IN,
      ALL_COUNTS_IN,
      act('x', ROWS),
      f32('w', ['experts', 'dim']),
      f32('lse', 'rows', OPTIONAL),
    ],
    outputs: [act('dx', ROWS), f32('dw', ['experts', 'dim'], ADDED)],
    attrs: [...ROUTE, 'worldSize', 'auxCoefficient', 'zCoefficient', 'accumulate'],
    work: [2, ROUTER_WORK],
  }),
  // loss[0] = scale * E * sum_e f_e P_e over the local tokens. Its sum over the world is the
  // balance loss without its coefficient.
  aux_loss: compute({
    inputs: [f32('probs', ['rows', 'experts']), ALL_COUNTS_IN],
    outputs: [f32('loss', 1)],
    attrs: ['rows', 'experts', 'topK', 'worldSize', 'scale', 'accumulate'],
  }),
  // loss[0] = scale * sum_n lse[n]^2.
  z_loss: compute({
    inputs: [f32('lse', 'rows')],
    outputs: [f32('loss', 1)],
    attrs: ['rows', 'scale', 'accumulate'],
  }),

  // rows[row(n,i)] = x[n] for every choice that is kept.
  permute: compute({
    inputs: [act('x', ROWS), EXPERT_IN, SLOT_IN, COUNTS_IN],
    outputs: [act('rows', SENT)],
    attrs: ROUTE,
    placed: true,
  }),
  // dx[n] = sum_i drows[row(n,i)] over the choices that are kept.
  permute_backward: compute({
    inputs: [act('drows', SENT), EXPERT_IN, SLOT_IN, COUNTS_IN],
    outputs: [act('dx', ROWS)],
    attrs: [...ROUTE, 'accumulate'],
    placed: true,
  }),
  // y[n] = sum_i weight[n,i] * rows[row(n,i)] over the choices that are kept; 0 if none is.
  unpermute: compute({
    inputs: [act('rows', SENT), EXPERT_IN, SLOT_IN, COUNTS_IN, f32('weight', CHOICES)],
    outputs: [act('y', ROWS)],
    attrs: ROUTE,
    placed: true,
  }),
  // drows[row(n,i)] = weight[n,i] * dy[n]; dweight[n,i] = <dy[n], rows[row(n,i)]>, 0 if dropped.
  unpermute_backward: compute({
    inputs: [act('dy', ROWS), act('rows', SENT), EXPERT_IN, SLOT_IN, COUNTS_IN, f32('weight', CHOICES)],
    outputs: [act('drows', SENT), f32('dweight', CHOICES)],
    attrs: ROUTE,
    placed: true,
  }),

  // For each local expert e with its rows x_e: y_e = x_e w_e^T (+ b_e). w: [L, out, in], b: [L,
  // out].
  grouped_linear: compute({
    inputs: [
      act('x', { routed: 'in' }),
      act('w', EXPERT_WEIGHT),
      ALL_COUNTS_IN,
      act('b', [LOCAL_EXPERTS, 'out'], OPTIONAL),
    ],
    outputs: [act('y', { routed: 'out' })],
    attrs: ['in', 'out'],
    routed: ROUTED_IN_CHUNKS,
    work: LINEAR_WORK,
  }),
  grouped_linear_dgrad: compute({
    inputs: [act('dy', { routed: 'out' }), act('w', EXPERT_WEIGHT), ALL_COUNTS_IN],
    outputs: [act('dx', { routed: 'in' })],
    attrs: ['in', 'out'],
    routed: ROUTED_IN_CHUNKS,
    work: LINEAR_WORK,
  }),
  // Always over all rows, so that chunks do not change the order of sums.
  grouped_linear_wgrad: compute({
    inputs: [act('dy', { routed: 'out' }), act('x', { routed: 'in' }), ALL_COUNTS_IN],
    outputs: [f32('dw', EXPERT_WEIGHT, ADDED), f32('db', [LOCAL_EXPERTS, 'out'], { ...ADDED, ...OPTIONAL })],
    attrs: ['in', 'out'],
    routed: ROUTED,
    work: LINEAR_WORK,
  }),

  // Coefficient gates of the shared expert (arXiv 2404.05019, eqs. 14, 16). w: [coefficients, d],
  // c: [N, coefficients]. With one coefficient (CG-1) c = sigmoid(x w^T), with two (CG-2) c is the
  // softmax of x w^T.
  shared_gate: compute({
    inputs: [act('x', ROWS), f32('w', ['coefficients', 'dim'])],
    outputs: [f32('c', COEFFICIENTS)],
    attrs: ['rows', 'dim', 'coefficients'],
  }),
  shared_gate_backward: compute({
    inputs: [f32('dc', COEFFICIENTS), f32('c', COEFFICIENTS), act('x', ROWS), f32('w', ['coefficients', 'dim'])],
    outputs: [act('dx', ROWS), f32('dw', ['coefficients', 'dim'], ADDED)],
    attrs: ['rows', 'dim', 'coefficients', 'accumulate'],
  }),
  // y = a + c[n,0] * s + m, or + c[n,1] * m with two coefficients (eqs. 15, 17).
  gated_add: compute({
    inputs: [act('a', ROWS), act('s', ROWS), f32('c', COEFFICIENTS), act('m', ROWS)],
    outputs: [act('y', ROWS)],
    attrs: ['rows', 'dim', 'coefficients'],
  }),
  // ds = c[n,0] * dy; dc[n,0] = <dy[n], s[n]>; with two coefficients also dc[n,1] = <dy[n], m[n]>.
  // The other gradients need no op of their own: da = dy, and dm is dy or scale_rows of it.
  gated_add_backward: compute({
    inputs: [
      act('dy', ROWS),
      act('s', ROWS),
      f32('c', COEFFICIENTS),
      act('m', ROWS, { when: { attr: 'coefficients', is: 2 } }),
    ],
    outputs: [act('ds', ROWS), f32('dc', COEFFICIENTS)],
    attrs: ['rows', 'dim', 'coefficients'],
  }),
  // y[n] = c[n,1] * x[n]; c: [N, 2].
  scale_rows: compute({
    inputs: [act('x', ROWS), f32('c', ['rows', 2])],
    outputs: [act('y', ROWS)],
    attrs: ['rows', 'dim'],
  }),
  // y = a + b.
  add: compute({
    inputs: [act('a', ROWS), act('b', ROWS)],
    outputs: [act('y', ROWS, { mayBe: ['a', 'b'] })],
    attrs: ['rows', 'dim'],
  }),

  // loss[0] = scale * sum_n (logsumexp(logits[n]) - logits[n, target]);
  // dlogits = scale * (softmax - onehot), which may be the buffer of the logits itself.
  // scale = 1 / (W*N*micro-batches), so that sums over ranks and micro-batches are means over all
  // tokens of the step.
  cross_entropy: compute({
    inputs: [act('logits', LOGITS), TOKENS_IN],
    outputs: [f32('loss', 1), act('dlogits', LOGITS, { ...OPTIONAL, mayBe: ['logits'] })],
    attrs: ['batch', 'sequence', 'vocabulary', 'scale', 'accumulate'],
  }),

  // copies[i] = buffers[i], rounded to the type of the copies.
  cast: compute({
    inputs: [f32('buffers', 'any', { repeated: true })],
    outputs: [act('copies', { as: 'buffers' }, { repeated: true })],
    attrs: [],
  }),
  // Sets every listed buffer to zero.
  zero: compute({ inputs: [], outputs: [any('buffers', 'any', { repeated: true })], attrs: [] }),
  // y[0] = the sum of the squares of all listed buffers, accumulated in f64.
  square_sum: compute({
    inputs: [f32('buffers', 'any', { repeated: true })],
    outputs: [f32('y', 1)],
    attrs: [],
  }),
  // norm[0] = sqrt(dense[0] + expert[0]): |dense|^2 + |experts|^2 of one expert-data-parallel
  // replica.
  global_norm: compute({ inputs: [f32('dense', 1), f32('expert', 1)], outputs: [f32('norm', 1)], attrs: [] }),
  // Decoupled weight decay (arXiv 1711.05101, Algorithm 2). hyper = [learning rate, 1 - beta1^t,
  // 1 - beta2^t, 0] is written before each run. The gradient is first multiplied by
  // min(1, clip / norm); m, v and w are updated in place.
  adamw: compute({
    inputs: [f32('g', 'elements'), f32('hyper', 4), f32('norm', 1)],
    outputs: [f32('w', 'elements', ADDED), f32('m', 'elements', ADDED), f32('v', 'elements', ADDED)],
    attrs: ['elements', 'beta1', 'beta2', 'epsilon', 'weightDecay', 'clip'],
  }),

  // allCounts[q][e] for every rank q of the world.
  all_gather_counts: comm({
    collective: 'gather',
    inputs: [COUNTS_IN],
    outputs: [i32('allCounts', ALL_COUNTS)],
    attrs: ['experts'],
  }),
  // Routed rows of width dim: `dispatch` takes them from expert order to local-expert order across
  // the EP group, `combine` takes them back. The counts of each run are checked against both
  // buffers.
  all_to_all: comm({
    collective: 'exchange',
    place: 'apart',
    inputs: [narrow('rows'), ALL_COUNTS_IN],
    outputs: [narrow('out')],
    attrs: ['direction', 'dim'],
    routed: ROUTED_IN_CHUNKS,
  }),
  // The element-wise sum over a group (world, ep, edp) of every listed buffer, in place. It is
  // summed in rank order, so every rank gets equal bits. Neighbours in memory travel as one
  // message.
  all_reduce: comm({
    collective: 'sum',
    place: 'shared',
    inputs: [f32('buffers', 'any', { repeated: true })],
    outputs: [f32('buffers', 'any', { repeated: true })],
    attrs: ['group'],
  }),
} as const satisfies Record<string, OpSpec>

export type OpName = keyof typeof OPS

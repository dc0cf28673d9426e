// The op table: the one place that says what an op reads, writes and needs. The emitter is checked against it in TypeScript, the engine against the
// same names in C++ (worker/native/backend.h); tests/native holds the two lists equal.
//
// Notation (row-major, last index fastest):
//   B sequences, T positions, N = B*T local tokens, d model width, H heads, V vocabulary, F feed-forward width,
//   E experts in the world, k = topK, C = capacity: rows one rank may send to one expert (it bounds, it does not pad),
//   W = world size, P = expert-parallel size, L = E/P experts on this rank; EP group of rank r: ranks floor(r/P)*P .. +P-1.
//   kept[q][e] = min(allCounts[q][e], C): rows rank q really sends to expert e.
//   R = routed rows: sum_e kept[rank][e] before dispatch, sum over the EP group and the local experts of kept after it; at most N*k and P*N*k.
//
// Routed rows before dispatch lie in order of global expert, then slot: row(n, i) = sum_{e' < expert[n,i]} kept[rank][e'] + slot[n,i].
// After dispatch they lie in order of local expert, then source rank in the EP group, then slot, without gaps.
//
// "+=" outputs are accumulated into (and so are read too). With attr accumulate = 1 the first output is added to instead of overwritten.

export interface OpSpec {
  queue: 'compute' | 'comm'
  /** Names in order; a trailing `?` marks one that may be left out; `...` a list of any length. */
  inputs: readonly string[]
  outputs: readonly string[]
  attrs: readonly string[]
}

const op = (queue: OpSpec['queue'], inputs: string, outputs: string, attrs: string): OpSpec => ({
  queue,
  inputs: inputs.split(' ').filter(Boolean),
  outputs: outputs.split(' ').filter(Boolean),
  attrs: attrs.split(' ').filter(Boolean),
})

const ROUTE = 'rows dim experts topK capacity'
const GROUP = 'experts capacity rank expertParallelSize'

export const OPS = {
  // x[n] = wte[tokens[b,t]] + wpe[t]. tokens is i32 [B, T+1]: the inputs are its first T columns, the targets its last T.
  embedding: op('compute', 'tokens wte wpe', 'x', 'batch sequence dim'),
  embedding_backward: op('compute', 'tokens dx', 'dwte+= dwpe+=', 'batch sequence dim'),

  // y = (x - mean) * rstd * gamma + beta over the last axis; epsilon 1e-5. mean, rstd: [rows].
  layernorm: op('compute', 'x gamma beta', 'y mean rstd', 'rows dim'),
  layernorm_backward: op('compute', 'dy x gamma mean rstd', 'dx dgamma+= dbeta+=', 'rows dim accumulate'),

  // y[rows, out] = x[rows, in] w[out, in]^T + b (+ residual[rows, out]).
  linear: op('compute', 'x w b residual?', 'y', 'rows in out'),
  linear_dgrad: op('compute', 'dy w', 'dx', 'rows in out accumulate'),
  linear_wgrad: op('compute', 'dy x', 'dw+= db+=', 'rows in out'),

  // Causal softmax(q k^T / sqrt(d/H)) v. qkv: [N, 3d] as q | k | v, each [H, d/H] per token. lse: [B, H, T] log-sum-exp of the scaled scores.
  attention: op('compute', 'qkv', 'o lse', 'batch sequence heads dim'),
  attention_backward: op('compute', 'do qkv o lse', 'dqkv', 'batch sequence heads dim'),

  // tanh approximation, as GPT-2. Element count = rows * dim, or, with allCounts, this rank's routed rows after dispatch * dim.
  gelu: op('compute', 'x allCounts?', 'y', `rows dim ${GROUP}`),
  gelu_backward: op('compute', 'dy x allCounts?', 'dx', `rows dim ${GROUP}`),

  // probs[N,E] = softmax(x w^T) in f32, before the choice; expert[N,k] = the k largest, ties to the lower index;
  // weight[N,k] = probs of those, renormalised to sum 1 when k = 2; counts[e] = choices of e before any drop;
  // slot[n,i] = place among the choices of that expert, counted over i = 0 of all tokens in token order, then i = 1; -1 when >= C.
  router: op('compute', 'x w', 'probs expert weight slot counts', ROUTE),
  // From dweight (0 where dropped) through renormalisation and softmax, plus the balance loss
  //   auxCoefficient * E * sum_e f_e P_e,  f_e = sum_q allCounts[q][e] / (W*N*k)  (constant),  P_e = sum_n probs[n,e] / (W*N).
  router_backward: op(
    'compute',
    'dweight probs expert weight slot allCounts x w',
    'dx dw+=',
    `${ROUTE} worldSize auxCoefficient accumulate`,
  ),
  // loss[0] = E * sum_e f_e P_e over the local tokens (the world's sum of it is the balance loss, without its coefficient).
  aux_loss: op('compute', 'probs allCounts', 'loss', 'rows experts topK worldSize'),

  // rows[row(n,i)] = x[n] for every kept choice.
  permute: op('compute', 'x expert slot counts', 'rows', ROUTE),
  // dx[n] = sum_i drows[row(n,i)] over kept choices.
  permute_backward: op('compute', 'drows expert slot counts', 'dx', `${ROUTE} accumulate`),
  // y[n] = sum_i weight[n,i] * rows[row(n,i)] over kept choices; 0 when none is.
  unpermute: op('compute', 'rows expert slot counts weight', 'y', ROUTE),
  // drows[row(n,i)] = weight[n,i] * dy[n]; dweight[n,i] = <dy[n], rows[row(n,i)]>, 0 where dropped.
  unpermute_backward: op('compute', 'dy rows expert slot counts weight', 'drows dweight', ROUTE),

  // Per local expert e with its rows x_e: y_e = x_e w_e^T + b_e. w: [L, out, in], b: [L, out].
  grouped_linear: op('compute', 'x w b allCounts', 'y', `in out ${GROUP}`),
  grouped_linear_dgrad: op('compute', 'dy w allCounts', 'dx', `in out ${GROUP}`),
  grouped_linear_wgrad: op('compute', 'dy x allCounts', 'dw+= db+=', `in out ${GROUP}`),

  // CG-1 (arXiv 2404.05019, coefficient gate 1): c[n] = sigmoid(<n_n, w>).
  shared_gate: op('compute', 'x w', 'c', 'rows dim'),
  shared_gate_backward: op('compute', 'dc c x w', 'dx dw+=', 'rows dim accumulate'),
  // y = a + c[n] * s + m.
  gated_add: op('compute', 'a s c m', 'y', 'rows dim'),
  // ds = c[n] * dy; dc[n] = <dy[n], s[n]>. (da = dm = dy.)
  gated_add_backward: op('compute', 'dy s c', 'ds dc', 'rows dim'),
  // y = a + b, elementwise over rows * dim.
  add: op('compute', 'a b', 'y', 'rows dim'),

  // loss[0] = scale * sum_n (logsumexp(logits[n]) - logits[n, target]); dlogits = scale * (softmax - onehot). dlogits may be logits itself.
  // scale = 1 / (W*N), so that sums over ranks are means over the world's tokens.
  cross_entropy: op('compute', 'logits tokens', 'loss dlogits?', 'batch sequence vocabulary scale'),

  // Sets every listed buffer to zero.
  zero: op('compute', '', 'buffers...', ''),
  // y[0] = sum over all listed buffers of the squares (accumulated in f64).
  square_sum: op('compute', 'buffers...', 'y', ''),
  // norm[0] = sqrt(dense[0] + expert[0]): |dense|^2 + |experts|^2 of one expert-data-parallel replica.
  global_norm: op('compute', 'dense expert', 'norm', ''),
  // Decoupled weight decay (arXiv 1711.05101, Algorithm 2). hyper = [learning rate, 1 - beta1^t, 1 - beta2^t, 0] written before each run;
  // the gradient is multiplied by min(1, clip / norm) first; m, v, w updated in place.
  adamw: op('compute', 'g hyper norm', 'w m+= v+=', 'elements beta1 beta2 epsilon weightDecay clip'),

  // allCounts[q][e] for every rank q of the world. i32.
  all_gather_counts: op('comm', 'counts', 'allCounts', 'experts'),
  // Routed rows of width dim: `dispatch` from expert order to local-expert order across the EP group, `combine` the way back.
  all_to_all: op('comm', 'rows allCounts', 'out', `direction dim ${GROUP}`),
  // Element-wise sum over a group (world, ep, edp) of every listed buffer, in place; f32, summed in rank order, so every rank gets equal bits.
  // inputs = outputs. Neighbours in memory travel as one message.
  all_reduce: op('comm', 'buffers...', 'buffers...', 'group'),
} as const satisfies Record<string, OpSpec>

export type OpName = keyof typeof OPS

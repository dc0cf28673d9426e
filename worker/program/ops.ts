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
// Marks after a name: "*" holds activations, their gradients, or weights as products read them: f32, or bf16 in all buffers of an op that are marked
// so; others are f32, sums are always taken in f32. "+=" is accumulated into, and so is read too; "?" may be left out; "..." is a list of any length; "#" holds routed rows
// of which an op with attrs chunk, chunks touches its chunk alone. With attr accumulate = 1 the first output is added to instead of overwritten.
//
// Chunks: of the K rows from source rank q to expert e, chunk i of c is slots floor(K*i/c) .. floor(K*(i+1)/c) - 1, before and after dispatch
// alike. Rows keep their places whatever the chunks, so ops that follow need not know of them.

export interface OpSpec {
  queue: 'compute' | 'comm'
  /** Names in order, with the marks above. */
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

const CHUNK = 'chunk chunks'
const ROUTE = 'rows dim experts topK capacity'
const GROUP = 'experts capacity rank expertParallelSize'

export const OPS = {
  // x[n] = wte[tokens[b,t]] (+ wpe[t]). tokens is i32 [B, T+1]: the inputs are its first T columns, the targets its last T.
  embedding: op('compute', 'tokens wte wpe?', 'x*', 'batch sequence dim'),
  embedding_backward: op('compute', 'tokens dx*', 'dwte+= dwpe+=?', 'batch sequence dim'),

  // y = (x - mean) * rstd * gamma + beta over the last axis; epsilon 1e-5. mean, rstd: [rows].
  layernorm: op('compute', 'x* gamma beta', 'y* mean rstd', 'rows dim'),
  layernorm_backward: op('compute', 'dy* x* gamma mean rstd', 'dx* dgamma+= dbeta+=', 'rows dim accumulate'),
  // y = x * rstd * gamma, rstd = 1 / sqrt(mean(x^2) + 1e-5) (arXiv 1910.07467). rstd: [rows].
  rmsnorm: op('compute', 'x* gamma', 'y* rstd', 'rows dim'),
  rmsnorm_backward: op('compute', 'dy* x* gamma rstd', 'dx* dgamma+=', 'rows dim accumulate'),

  // y[rows, out] = x[rows, in] w[out, in]^T (+ b) (+ residual[rows, out]). bias = 1 where b is given.
  linear: op('compute', 'x* w* b*? residual*?', 'y*', 'rows in out bias'),
  linear_dgrad: op('compute', 'dy* w*', 'dx*', 'rows in out accumulate'),
  linear_wgrad: op('compute', 'dy* x*', 'dw+= db+=?', 'rows in out'),

  // Causal softmax(q k^T / sqrt(d/H)) v. KV = keyValueHeads key and value heads, each shared by H/KV query heads in a row (arXiv 2305.13245).
  // qkv: [N, (H + 2 KV) d/H] as q | k | v, heads of d/H values each. lse: [B, H, T] log-sum-exp of the scaled scores.
  attention: op('compute', 'qkv*', 'o* lse', 'batch sequence heads keyValueHeads dim'),
  attention_backward: op('compute', 'do* qkv* o* lse', 'dqkv*', 'batch sequence heads keyValueHeads dim'),
  // Turns q and k of position t in place, values j and j + d/2H of a head by the angle t * base^(-2jH/d) (arXiv 2104.09864); by its negative,
  // which is the gradient, where inverse = 1.
  rope: op('compute', '', 'qkv*+=', 'batch sequence heads keyValueHeads dim base inverse'),

  // tanh approximation, as GPT-2. Element count = rows * dim, or, with allCounts, this rank's routed rows after dispatch * dim.
  gelu: op('compute', 'x*# allCounts?', 'y*#', `rows dim ${GROUP} ${CHUNK}`),
  gelu_backward: op('compute', 'dy*# x*# allCounts?', 'dx*#', `rows dim ${GROUP} ${CHUNK}`),
  // y = silu(g) * u with x[row] = g | u, each dim wide (arXiv 2002.05202). Rows as for gelu.
  swiglu: op('compute', 'x*# allCounts?', 'y*#', `rows dim ${GROUP} ${CHUNK}`),
  swiglu_backward: op('compute', 'dy*# x*# allCounts?', 'dx*#', `rows dim ${GROUP} ${CHUNK}`),

  // probs[N,E] = softmax(x w^T) in f32, before the choice; expert[N,k] = the k largest, ties to the lower index;
  // weight[N,k] = probs of those, renormalised to sum 1 when k = 2; counts[e] = choices of e before any drop;
  // slot[n,i] = place among the choices of that expert, counted over i = 0 of all tokens in token order, then i = 1; -1 when >= C.
  // taken[n] (i32 [N]): an expert that token n may not choose (DGMoE); probs do not know of it. lse[n] = logsumexp of the logits.
  router: op('compute', 'x* w taken?', 'probs expert weight slot counts lse?', ROUTE),
  // From dweight (0 where dropped) through renormalisation and softmax, plus the balance loss
  //   auxCoefficient * E * sum_e f_e P_e,  f_e = sum_q allCounts[q][e] / (W*N*k)  (constant),  P_e = sum_n probs[n,e] / (W*N),
  // plus, with lse, the router's z-loss (arXiv 2202.08906, eq. 5)  zCoefficient * sum_n lse[n]^2 / (W*N).
  router_backward: op(
    'compute',
    'dweight probs expert weight slot allCounts x* w lse?',
    'dx* dw+=',
    `${ROUTE} worldSize auxCoefficient zCoefficient accumulate`,
  ),
  // loss[0] = scale * E * sum_e f_e P_e over the local tokens (the world's sum of it is the balance loss, without its coefficient).
  aux_loss: op('compute', 'probs allCounts', 'loss', 'rows experts topK worldSize scale accumulate'),
  // loss[0] = scale * sum_n lse[n]^2.
  z_loss: op('compute', 'lse', 'loss', 'rows scale accumulate'),

  // rows[row(n,i)] = x[n] for every kept choice.
  permute: op('compute', 'x* expert slot counts', 'rows*', ROUTE),
  // dx[n] = sum_i drows[row(n,i)] over kept choices.
  permute_backward: op('compute', 'drows* expert slot counts', 'dx*', `${ROUTE} accumulate`),
  // y[n] = sum_i weight[n,i] * rows[row(n,i)] over kept choices; 0 when none is.
  unpermute: op('compute', 'rows* expert slot counts weight', 'y*', ROUTE),
  // drows[row(n,i)] = weight[n,i] * dy[n]; dweight[n,i] = <dy[n], rows[row(n,i)]>, 0 where dropped.
  unpermute_backward: op('compute', 'dy* rows* expert slot counts weight', 'drows* dweight', ROUTE),

  // Per local expert e with its rows x_e: y_e = x_e w_e^T (+ b_e). w: [L, out, in], b: [L, out].
  grouped_linear: op('compute', 'x*# w* allCounts b*?', 'y*#', `in out ${GROUP} ${CHUNK}`),
  grouped_linear_dgrad: op('compute', 'dy*# w* allCounts', 'dx*#', `in out ${GROUP} ${CHUNK}`),
  // Always of all rows, so that chunks do not change the order of sums.
  grouped_linear_wgrad: op('compute', 'dy* x* allCounts', 'dw+= db+=?', `in out ${GROUP}`),

  // Coefficient gates of the shared expert (arXiv 2404.05019, eqs. 14, 16). w: [coefficients, d], c: [N, coefficients].
  // coefficients = 1 (CG-1): c = sigmoid(x w^T); coefficients = 2 (CG-2): c = softmax(x w^T).
  shared_gate: op('compute', 'x* w', 'c', 'rows dim coefficients'),
  shared_gate_backward: op('compute', 'dc c x* w', 'dx* dw+=', 'rows dim coefficients accumulate'),
  // y = a + c[n,0] * s + m, or + c[n,1] * m where coefficients = 2 (eqs. 15, 17).
  gated_add: op('compute', 'a* s* c m*', 'y*', 'rows dim coefficients'),
  // ds = c[n,0] * dy; dc[n,0] = <dy[n], s[n]>; with m (coefficients = 2) dc[n,1] = <dy[n], m[n]>. (da = dy; dm = dy or scale_rows.)
  gated_add_backward: op('compute', 'dy* s* c m*?', 'ds* dc', 'rows dim coefficients'),
  // y[n] = c[n,1] * x[n]; c: [N, 2].
  scale_rows: op('compute', 'x* c', 'y*', 'rows dim'),
  // y = a + b, elementwise over rows * dim.
  add: op('compute', 'a* b*', 'y*', 'rows dim'),

  // loss[0] = scale * sum_n (logsumexp(logits[n]) - logits[n, target]); dlogits = scale * (softmax - onehot). dlogits may be logits itself.
  // scale = 1 / (W*N*micro-batches), so that sums over ranks and micro-batches are means over all tokens of the step.
  cross_entropy: op('compute', 'logits* tokens', 'loss dlogits*?', 'batch sequence vocabulary scale accumulate'),

  // copies[i] = buffers[i], rounded to what the copies are; as many elements in each.
  cast: op('compute', 'buffers...', 'copies*...', ''),
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
  all_to_all: op('comm', 'rows*# allCounts', 'out*#', `direction dim ${GROUP} ${CHUNK}`),
  // Element-wise sum over a group (world, ep, edp) of every listed buffer, in place; f32, summed in rank order, so every rank gets equal bits.
  // inputs = outputs. Neighbours in memory travel as one message.
  all_reduce: op('comm', 'buffers...', 'buffers...', 'group'),
} as const satisfies Record<string, OpSpec>

export type OpName = keyof typeof OPS

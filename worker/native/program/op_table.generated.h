
// The rows of the op table. op_table.h says what their fields mean.

const std::vector<AttrSpec> kAttrs = {
    {.name = "rows", .integer = &Attrs::rows, .least = 0, .most = 9007199254740992},
    {.name = "dim", .integer = &Attrs::dim, .least = 1, .most = 9007199254740992},
    {.name = "in", .integer = &Attrs::in, .least = 1, .most = 9007199254740992},
    {.name = "out", .integer = &Attrs::out, .least = 1, .most = 9007199254740992},
    {.name = "batch", .integer = &Attrs::batch, .least = 0, .most = 9007199254740992},
    {.name = "sequence", .integer = &Attrs::sequence, .least = 0, .most = 9007199254740992},
    {.name = "heads", .integer = &Attrs::heads, .least = 1, .most = 9007199254740992},
    {.name = "keyValueHeads", .integer = &Attrs::keyValueHeads, .least = 1, .most = 9007199254740992},
    {.name = "vocabulary", .integer = &Attrs::vocabulary, .least = 1, .most = 9007199254740992},
    {.name = "experts", .integer = &Attrs::experts, .least = 1, .most = 9007199254740992},
    {.name = "topK", .integer = &Attrs::topK, .least = 1, .most = 9007199254740992},
    {.name = "capacity", .integer = &Attrs::capacity, .least = 0, .most = 9007199254740992},
    {.name = "rank", .integer = &Attrs::rank, .least = 0, .most = 9007199254740992, .equals = &Topology::rank},
    {.name = "worldSize", .integer = &Attrs::worldSize, .least = 1, .most = 9007199254740992, .equals = &Topology::world_size},
    {.name = "expertParallelSize", .integer = &Attrs::expertParallelSize, .least = 1, .most = 9007199254740992, .equals = &Topology::expert_parallel_size},
    {.name = "chunk", .integer = &Attrs::chunk, .least = 0, .most = 1023, .preset = 0},
    {.name = "chunks", .integer = &Attrs::chunks, .least = 1, .most = 1024, .preset = 1},
    {.name = "elements", .integer = &Attrs::elements, .least = 0, .most = 9007199254740992},
    {.name = "coefficients", .integer = &Attrs::coefficients, .least = 1, .most = 2},
    {.name = "accumulate", .integer = &Attrs::accumulate, .least = 0, .most = 1, .preset = 0},
    {.name = "bias", .integer = &Attrs::bias, .least = 0, .most = 1},
    {.name = "inverse", .integer = &Attrs::inverse, .least = 0, .most = 1},
    {.name = "scale", .real = &Attrs::scale},
    {.name = "auxCoefficient", .real = &Attrs::auxCoefficient},
    {.name = "zCoefficient", .real = &Attrs::zCoefficient},
    {.name = "base", .real = &Attrs::base},
    {.name = "beta1", .real = &Attrs::beta1},
    {.name = "beta2", .real = &Attrs::beta2},
    {.name = "epsilon", .real = &Attrs::epsilon},
    {.name = "weightDecay", .real = &Attrs::weightDecay},
    {.name = "clip", .real = &Attrs::clip},
    {.name = "direction", .word = Word::kDirection, .words = {"dispatch", "combine"}},
    {.name = "group", .word = Word::kGroup, .words = {"world", "ep", "edp"}},
};

const std::vector<OpSpec> kOps = {
    {.name = "embedding",
     .inputs = {
         {.name = "tokens", .type = BufferType::kI32, .formula = "batch * (sequence + 1)", .elements = [](const Sizes& s) { return s[&Attrs::batch] * (s[&Attrs::sequence] + Count(1)); }},
         {.name = "wte", .type = BufferType::kF32, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "wpe", .type = BufferType::kF32, .optional = true, .formula = "sequence * dim", .elements = [](const Sizes& s) { return s[&Attrs::sequence] * s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "batch * sequence * dim", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * s[&Attrs::dim]; }},},
     .attrs = {"batch", "sequence", "dim"}},
    {.name = "embedding_backward",
     .inputs = {
         {.name = "tokens", .type = BufferType::kI32, .formula = "batch * (sequence + 1)", .elements = [](const Sizes& s) { return s[&Attrs::batch] * (s[&Attrs::sequence] + Count(1)); }},
         {.name = "dx", .type = BufferType::kActivation, .formula = "batch * sequence * dim", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "dwte", .type = BufferType::kF32, .accumulate = true, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "dwpe", .type = BufferType::kF32, .optional = true, .accumulate = true, .formula = "sequence * dim", .elements = [](const Sizes& s) { return s[&Attrs::sequence] * s[&Attrs::dim]; }},},
     .attrs = {"batch", "sequence", "dim"}},
    {.name = "layernorm",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "gamma", .type = BufferType::kF32, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "beta", .type = BufferType::kF32, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "mean", .type = BufferType::kF32, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},
         {.name = "rstd", .type = BufferType::kF32, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .attrs = {"rows", "dim"}},
    {.name = "layernorm_backward",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "gamma", .type = BufferType::kF32, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "mean", .type = BufferType::kF32, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},
         {.name = "rstd", .type = BufferType::kF32, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "dgamma", .type = BufferType::kF32, .accumulate = true, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "dbeta", .type = BufferType::kF32, .accumulate = true, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "accumulate"}},
    {.name = "rmsnorm",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "gamma", .type = BufferType::kF32, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "rstd", .type = BufferType::kF32, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .attrs = {"rows", "dim"}},
    {.name = "rmsnorm_backward",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "gamma", .type = BufferType::kF32, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "rstd", .type = BufferType::kF32, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "dgamma", .type = BufferType::kF32, .accumulate = true, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "accumulate"}},
    {.name = "linear",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * in", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::in]; }},
         {.name = "w", .type = BufferType::kActivation, .formula = "out * in", .elements = [](const Sizes& s) { return s[&Attrs::out] * s[&Attrs::in]; }},
         {.name = "b", .type = BufferType::kActivation, .when = "bias", .is = 1, .formula = "out", .elements = [](const Sizes& s) { return s[&Attrs::out]; }},
         {.name = "residual", .type = BufferType::kActivation, .optional = true, .formula = "rows * out", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::out]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .formula = "rows * out", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::out]; }},},
     .attrs = {"rows", "in", "out", "bias"}},
    {.name = "linear_dgrad",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .formula = "rows * out", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::out]; }},
         {.name = "w", .type = BufferType::kActivation, .formula = "out * in", .elements = [](const Sizes& s) { return s[&Attrs::out] * s[&Attrs::in]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .formula = "rows * in", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::in]; }},},
     .attrs = {"rows", "in", "out", "accumulate"}},
    {.name = "linear_wgrad",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .formula = "rows * out", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::out]; }},
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * in", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::in]; }},},
     .outputs = {
         {.name = "dw", .type = BufferType::kF32, .accumulate = true, .formula = "out * in", .elements = [](const Sizes& s) { return s[&Attrs::out] * s[&Attrs::in]; }},
         {.name = "db", .type = BufferType::kF32, .optional = true, .accumulate = true, .formula = "out", .elements = [](const Sizes& s) { return s[&Attrs::out]; }},},
     .attrs = {"rows", "in", "out"}},
    {.name = "attention",
     .inputs = {
         {.name = "qkv", .type = BufferType::kActivation, .formula = "batch * sequence * (heads + (2 * keyValueHeads)) * (dim / heads)", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * (s[&Attrs::heads] + (Count(2) * s[&Attrs::keyValueHeads])) * (s[&Attrs::dim] / s[&Attrs::heads]); }},},
     .outputs = {
         {.name = "o", .type = BufferType::kActivation, .formula = "batch * sequence * dim", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * s[&Attrs::dim]; }},
         {.name = "lse", .type = BufferType::kF32, .formula = "batch * heads * sequence", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::heads] * s[&Attrs::sequence]; }},},
     .attrs = {"batch", "sequence", "heads", "keyValueHeads", "dim"},
     .rules = {
         {"heads", Rule::kMultipleOf, "keyValueHeads", [](const Sizes& s) { return s[&Attrs::keyValueHeads]; }},
         {"dim", Rule::kMultipleOf, "heads", [](const Sizes& s) { return s[&Attrs::heads]; }},}},
    {.name = "attention_backward",
     .inputs = {
         {.name = "do", .type = BufferType::kActivation, .formula = "batch * sequence * dim", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * s[&Attrs::dim]; }},
         {.name = "qkv", .type = BufferType::kActivation, .formula = "batch * sequence * (heads + (2 * keyValueHeads)) * (dim / heads)", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * (s[&Attrs::heads] + (Count(2) * s[&Attrs::keyValueHeads])) * (s[&Attrs::dim] / s[&Attrs::heads]); }},
         {.name = "o", .type = BufferType::kActivation, .formula = "batch * sequence * dim", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * s[&Attrs::dim]; }},
         {.name = "lse", .type = BufferType::kF32, .formula = "batch * heads * sequence", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::heads] * s[&Attrs::sequence]; }},},
     .outputs = {
         {.name = "dqkv", .type = BufferType::kActivation, .formula = "batch * sequence * (heads + (2 * keyValueHeads)) * (dim / heads)", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * (s[&Attrs::heads] + (Count(2) * s[&Attrs::keyValueHeads])) * (s[&Attrs::dim] / s[&Attrs::heads]); }},},
     .attrs = {"batch", "sequence", "heads", "keyValueHeads", "dim"},
     .rules = {
         {"heads", Rule::kMultipleOf, "keyValueHeads", [](const Sizes& s) { return s[&Attrs::keyValueHeads]; }},
         {"dim", Rule::kMultipleOf, "heads", [](const Sizes& s) { return s[&Attrs::heads]; }},}},
    {.name = "rope",
     .inputs = {},
     .outputs = {
         {.name = "qkv", .type = BufferType::kActivation, .accumulate = true, .formula = "batch * sequence * (heads + (2 * keyValueHeads)) * (dim / heads)", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * (s[&Attrs::heads] + (Count(2) * s[&Attrs::keyValueHeads])) * (s[&Attrs::dim] / s[&Attrs::heads]); }},},
     .attrs = {"batch", "sequence", "heads", "keyValueHeads", "dim", "base", "inverse"},
     .rules = {
         {"heads", Rule::kMultipleOf, "keyValueHeads", [](const Sizes& s) { return s[&Attrs::keyValueHeads]; }},
         {"dim", Rule::kMultipleOf, "2 * heads", [](const Sizes& s) { return Count(2) * s[&Attrs::heads]; }},}},
    {.name = "gelu",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "allCounts", .type = BufferType::kI32, .optional = true, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim"},
     .routed_by = 1,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize", "chunk", "chunks"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},
         {"chunk", Rule::kAtMost, "chunks - 1", [](const Sizes& s) { return s[&Attrs::chunks] - Count(1); }},}},
    {.name = "gelu_backward",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "x", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "allCounts", .type = BufferType::kI32, .optional = true, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim"},
     .routed_by = 2,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize", "chunk", "chunks"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},
         {"chunk", Rule::kAtMost, "chunks - 1", [](const Sizes& s) { return s[&Attrs::chunks] - Count(1); }},}},
    {.name = "swiglu",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "2 * dim", .elements = [](const Sizes& s) { return Count(2) * s[&Attrs::dim]; }},
         {.name = "allCounts", .type = BufferType::kI32, .optional = true, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim"},
     .routed_by = 1,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize", "chunk", "chunks"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},
         {"chunk", Rule::kAtMost, "chunks - 1", [](const Sizes& s) { return s[&Attrs::chunks] - Count(1); }},}},
    {.name = "swiglu_backward",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "x", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "2 * dim", .elements = [](const Sizes& s) { return Count(2) * s[&Attrs::dim]; }},
         {.name = "allCounts", .type = BufferType::kI32, .optional = true, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "2 * dim", .elements = [](const Sizes& s) { return Count(2) * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim"},
     .routed_by = 2,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize", "chunk", "chunks"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},
         {"chunk", Rule::kAtMost, "chunks - 1", [](const Sizes& s) { return s[&Attrs::chunks] - Count(1); }},}},
    {.name = "router",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "w", .type = BufferType::kF32, .formula = "experts * dim", .elements = [](const Sizes& s) { return s[&Attrs::experts] * s[&Attrs::dim]; }},
         {.name = "taken", .type = BufferType::kI32, .optional = true, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .outputs = {
         {.name = "probs", .type = BufferType::kF32, .formula = "rows * experts", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::experts]; }},
         {.name = "expert", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "weight", .type = BufferType::kF32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "slot", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "counts", .type = BufferType::kI32, .formula = "experts", .elements = [](const Sizes& s) { return s[&Attrs::experts]; }},
         {.name = "lse", .type = BufferType::kF32, .optional = true, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .attrs = {"rows", "dim", "experts", "topK", "capacity"},
     .rules = {
         {"topK", Rule::kAtMost, "experts - (1 with 'taken')", [](const Sizes& s) { return s[&Attrs::experts] - s.given(2); }},}},
    {.name = "router_backward",
     .inputs = {
         {.name = "dweight", .type = BufferType::kF32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "probs", .type = BufferType::kF32, .formula = "rows * experts", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::experts]; }},
         {.name = "expert", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "weight", .type = BufferType::kF32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "slot", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "allCounts", .type = BufferType::kI32, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "w", .type = BufferType::kF32, .formula = "experts * dim", .elements = [](const Sizes& s) { return s[&Attrs::experts] * s[&Attrs::dim]; }},
         {.name = "lse", .type = BufferType::kF32, .optional = true, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "dw", .type = BufferType::kF32, .accumulate = true, .formula = "experts * dim", .elements = [](const Sizes& s) { return s[&Attrs::experts] * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "experts", "topK", "capacity", "worldSize", "auxCoefficient", "zCoefficient", "accumulate"}},
    {.name = "aux_loss",
     .inputs = {
         {.name = "probs", .type = BufferType::kF32, .formula = "rows * experts", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::experts]; }},
         {.name = "allCounts", .type = BufferType::kI32, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "loss", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},},
     .attrs = {"rows", "experts", "topK", "worldSize", "scale", "accumulate"}},
    {.name = "z_loss",
     .inputs = {
         {.name = "lse", .type = BufferType::kF32, .formula = "rows", .elements = [](const Sizes& s) { return s[&Attrs::rows]; }},},
     .outputs = {
         {.name = "loss", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},},
     .attrs = {"rows", "scale", "accumulate"}},
    {.name = "permute",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "expert", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "slot", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "counts", .type = BufferType::kI32, .formula = "experts", .elements = [](const Sizes& s) { return s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "rows", .type = BufferType::kActivation, .formula = "min(rows * topK, experts * capacity) * dim", .elements = [](const Sizes& s) { return least(s[&Attrs::rows] * s[&Attrs::topK], s[&Attrs::experts] * s[&Attrs::capacity]) * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "experts", "topK", "capacity"}},
    {.name = "permute_backward",
     .inputs = {
         {.name = "drows", .type = BufferType::kActivation, .formula = "min(rows * topK, experts * capacity) * dim", .elements = [](const Sizes& s) { return least(s[&Attrs::rows] * s[&Attrs::topK], s[&Attrs::experts] * s[&Attrs::capacity]) * s[&Attrs::dim]; }},
         {.name = "expert", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "slot", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "counts", .type = BufferType::kI32, .formula = "experts", .elements = [](const Sizes& s) { return s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "experts", "topK", "capacity", "accumulate"}},
    {.name = "unpermute",
     .inputs = {
         {.name = "rows", .type = BufferType::kActivation, .formula = "min(rows * topK, experts * capacity) * dim", .elements = [](const Sizes& s) { return least(s[&Attrs::rows] * s[&Attrs::topK], s[&Attrs::experts] * s[&Attrs::capacity]) * s[&Attrs::dim]; }},
         {.name = "expert", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "slot", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "counts", .type = BufferType::kI32, .formula = "experts", .elements = [](const Sizes& s) { return s[&Attrs::experts]; }},
         {.name = "weight", .type = BufferType::kF32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "experts", "topK", "capacity"}},
    {.name = "unpermute_backward",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "rows", .type = BufferType::kActivation, .formula = "min(rows * topK, experts * capacity) * dim", .elements = [](const Sizes& s) { return least(s[&Attrs::rows] * s[&Attrs::topK], s[&Attrs::experts] * s[&Attrs::capacity]) * s[&Attrs::dim]; }},
         {.name = "expert", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "slot", .type = BufferType::kI32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},
         {.name = "counts", .type = BufferType::kI32, .formula = "experts", .elements = [](const Sizes& s) { return s[&Attrs::experts]; }},
         {.name = "weight", .type = BufferType::kF32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},},
     .outputs = {
         {.name = "drows", .type = BufferType::kActivation, .formula = "min(rows * topK, experts * capacity) * dim", .elements = [](const Sizes& s) { return least(s[&Attrs::rows] * s[&Attrs::topK], s[&Attrs::experts] * s[&Attrs::capacity]) * s[&Attrs::dim]; }},
         {.name = "dweight", .type = BufferType::kF32, .formula = "rows * topK", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::topK]; }},},
     .attrs = {"rows", "dim", "experts", "topK", "capacity"}},
    {.name = "grouped_linear",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "in", .elements = [](const Sizes& s) { return s[&Attrs::in]; }},
         {.name = "w", .type = BufferType::kActivation, .formula = "(experts / expertParallelSize) * out * in", .elements = [](const Sizes& s) { return (s[&Attrs::experts] / s[&Attrs::expertParallelSize]) * s[&Attrs::out] * s[&Attrs::in]; }},
         {.name = "allCounts", .type = BufferType::kI32, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},
         {.name = "b", .type = BufferType::kActivation, .optional = true, .formula = "(experts / expertParallelSize) * out", .elements = [](const Sizes& s) { return (s[&Attrs::experts] / s[&Attrs::expertParallelSize]) * s[&Attrs::out]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "out", .elements = [](const Sizes& s) { return s[&Attrs::out]; }},},
     .attrs = {"in", "out"},
     .routed_by = 2,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize", "chunk", "chunks"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},
         {"chunk", Rule::kAtMost, "chunks - 1", [](const Sizes& s) { return s[&Attrs::chunks] - Count(1); }},}},
    {.name = "grouped_linear_dgrad",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "out", .elements = [](const Sizes& s) { return s[&Attrs::out]; }},
         {.name = "w", .type = BufferType::kActivation, .formula = "(experts / expertParallelSize) * out * in", .elements = [](const Sizes& s) { return (s[&Attrs::experts] / s[&Attrs::expertParallelSize]) * s[&Attrs::out] * s[&Attrs::in]; }},
         {.name = "allCounts", .type = BufferType::kI32, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "in", .elements = [](const Sizes& s) { return s[&Attrs::in]; }},},
     .attrs = {"in", "out"},
     .routed_by = 2,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize", "chunk", "chunks"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},
         {"chunk", Rule::kAtMost, "chunks - 1", [](const Sizes& s) { return s[&Attrs::chunks] - Count(1); }},}},
    {.name = "grouped_linear_wgrad",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "out", .elements = [](const Sizes& s) { return s[&Attrs::out]; }},
         {.name = "x", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "in", .elements = [](const Sizes& s) { return s[&Attrs::in]; }},
         {.name = "allCounts", .type = BufferType::kI32, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "dw", .type = BufferType::kF32, .accumulate = true, .formula = "(experts / expertParallelSize) * out * in", .elements = [](const Sizes& s) { return (s[&Attrs::experts] / s[&Attrs::expertParallelSize]) * s[&Attrs::out] * s[&Attrs::in]; }},
         {.name = "db", .type = BufferType::kF32, .optional = true, .accumulate = true, .formula = "(experts / expertParallelSize) * out", .elements = [](const Sizes& s) { return (s[&Attrs::experts] / s[&Attrs::expertParallelSize]) * s[&Attrs::out]; }},},
     .attrs = {"in", "out"},
     .routed_by = 2,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},}},
    {.name = "shared_gate",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "w", .type = BufferType::kF32, .formula = "coefficients * dim", .elements = [](const Sizes& s) { return s[&Attrs::coefficients] * s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "c", .type = BufferType::kF32, .formula = "rows * coefficients", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::coefficients]; }},},
     .attrs = {"rows", "dim", "coefficients"}},
    {.name = "shared_gate_backward",
     .inputs = {
         {.name = "dc", .type = BufferType::kF32, .formula = "rows * coefficients", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::coefficients]; }},
         {.name = "c", .type = BufferType::kF32, .formula = "rows * coefficients", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::coefficients]; }},
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "w", .type = BufferType::kF32, .formula = "coefficients * dim", .elements = [](const Sizes& s) { return s[&Attrs::coefficients] * s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "dx", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "dw", .type = BufferType::kF32, .accumulate = true, .formula = "coefficients * dim", .elements = [](const Sizes& s) { return s[&Attrs::coefficients] * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "coefficients", "accumulate"}},
    {.name = "gated_add",
     .inputs = {
         {.name = "a", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "s", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "c", .type = BufferType::kF32, .formula = "rows * coefficients", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::coefficients]; }},
         {.name = "m", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim", "coefficients"}},
    {.name = "gated_add_backward",
     .inputs = {
         {.name = "dy", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "s", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "c", .type = BufferType::kF32, .formula = "rows * coefficients", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::coefficients]; }},
         {.name = "m", .type = BufferType::kActivation, .when = "coefficients", .is = 2, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "ds", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "dc", .type = BufferType::kF32, .formula = "rows * coefficients", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::coefficients]; }},},
     .attrs = {"rows", "dim", "coefficients"}},
    {.name = "scale_rows",
     .inputs = {
         {.name = "x", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "c", .type = BufferType::kF32, .formula = "rows * 2", .elements = [](const Sizes& s) { return s[&Attrs::rows] * Count(2); }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim"}},
    {.name = "add",
     .inputs = {
         {.name = "a", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},
         {.name = "b", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .outputs = {
         {.name = "y", .type = BufferType::kActivation, .formula = "rows * dim", .elements = [](const Sizes& s) { return s[&Attrs::rows] * s[&Attrs::dim]; }},},
     .attrs = {"rows", "dim"}},
    {.name = "cross_entropy",
     .inputs = {
         {.name = "logits", .type = BufferType::kActivation, .formula = "batch * sequence * vocabulary", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * s[&Attrs::vocabulary]; }},
         {.name = "tokens", .type = BufferType::kI32, .formula = "batch * (sequence + 1)", .elements = [](const Sizes& s) { return s[&Attrs::batch] * (s[&Attrs::sequence] + Count(1)); }},},
     .outputs = {
         {.name = "loss", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},
         {.name = "dlogits", .type = BufferType::kActivation, .optional = true, .formula = "batch * sequence * vocabulary", .elements = [](const Sizes& s) { return s[&Attrs::batch] * s[&Attrs::sequence] * s[&Attrs::vocabulary]; }},},
     .attrs = {"batch", "sequence", "vocabulary", "scale", "accumulate"}},
    {.name = "cast",
     .inputs = {
         {.name = "buffers", .type = BufferType::kF32, .repeated = true, .extent = Extent::kAny},},
     .outputs = {
         {.name = "copies", .type = BufferType::kActivation, .repeated = true, .extent = Extent::kAsInputs},},
     .attrs = {}},
    {.name = "zero",
     .inputs = {},
     .outputs = {
         {.name = "buffers", .type = BufferType::kAny, .repeated = true, .extent = Extent::kAny},},
     .attrs = {}},
    {.name = "square_sum",
     .inputs = {
         {.name = "buffers", .type = BufferType::kF32, .repeated = true, .extent = Extent::kAny},},
     .outputs = {
         {.name = "y", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},},
     .attrs = {}},
    {.name = "global_norm",
     .inputs = {
         {.name = "dense", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},
         {.name = "expert", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},},
     .outputs = {
         {.name = "norm", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},},
     .attrs = {}},
    {.name = "adamw",
     .inputs = {
         {.name = "g", .type = BufferType::kF32, .formula = "elements", .elements = [](const Sizes& s) { return s[&Attrs::elements]; }},
         {.name = "hyper", .type = BufferType::kF32, .formula = "4", .elements = [](const Sizes&) { return Count(4); }},
         {.name = "norm", .type = BufferType::kF32, .formula = "1", .elements = [](const Sizes&) { return Count(1); }},},
     .outputs = {
         {.name = "w", .type = BufferType::kF32, .accumulate = true, .formula = "elements", .elements = [](const Sizes& s) { return s[&Attrs::elements]; }},
         {.name = "m", .type = BufferType::kF32, .accumulate = true, .formula = "elements", .elements = [](const Sizes& s) { return s[&Attrs::elements]; }},
         {.name = "v", .type = BufferType::kF32, .accumulate = true, .formula = "elements", .elements = [](const Sizes& s) { return s[&Attrs::elements]; }},},
     .attrs = {"elements", "beta1", "beta2", "epsilon", "weightDecay", "clip"}},
    {.name = "all_gather_counts",
     .collective = Collective::kAllGatherCounts,
     .inputs = {
         {.name = "counts", .type = BufferType::kI32, .formula = "experts", .elements = [](const Sizes& s) { return s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "allCounts", .type = BufferType::kI32, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .attrs = {"experts"}},
    {.name = "all_to_all",
     .collective = Collective::kDispatch,
     .place = Place::kApart,
     .inputs = {
         {.name = "rows", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},
         {.name = "allCounts", .type = BufferType::kI32, .formula = "worldSize * experts", .elements = [](const Sizes& s) { return s.world() * s[&Attrs::experts]; }},},
     .outputs = {
         {.name = "out", .type = BufferType::kActivation, .extent = Extent::kRouted, .formula = "dim", .elements = [](const Sizes& s) { return s[&Attrs::dim]; }},},
     .attrs = {"direction", "dim"},
     .routed_by = 1,
     .routed_attrs = {"experts", "capacity", "rank", "expertParallelSize", "chunk", "chunks"},
     .routed_rules = {
         {"experts", Rule::kMultipleOf, "expertParallelSize", [](const Sizes& s) { return s[&Attrs::expertParallelSize]; }},
         {"chunk", Rule::kAtMost, "chunks - 1", [](const Sizes& s) { return s[&Attrs::chunks] - Count(1); }},}},
    {.name = "all_reduce",
     .collective = Collective::kAllReduce,
     .place = Place::kShared,
     .inputs = {
         {.name = "buffers", .type = BufferType::kF32, .repeated = true, .extent = Extent::kAny},},
     .outputs = {
         {.name = "buffers", .type = BufferType::kF32, .repeated = true, .extent = Extent::kAny},},
     .attrs = {"group"}},
};

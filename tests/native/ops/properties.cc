// Checks properties on which schedules and models rely, beyond the numbers of one call: chunks,
// shared heads, inverse rotations, experts that are taken.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "cpu/reference/reference.h"

namespace scmoe::test {
namespace {

bool same_bits(const Value& a, const Value& b) {
  return a.real == b.real && a.whole == b.whole;
}

// --- Rows that are computed in chunks have the same bits as rows that are computed at once.

// A linear op on rows `from` to `to` - 1.
Call rows_of(const Call& call, int64_t from, int64_t to) {
  Call part = call;
  part.attrs.rows = to - from;
  const auto slice = [&](Value* v, int64_t width) {
    if (v) v->real = {v->real.begin() + from * width, v->real.begin() + to * width};
  };
  slice(find(part.in, "x"), call.attrs.in);
  slice(find(part.in, "residual"), call.attrs.out);
  slice(find(part.out, "y"), call.attrs.out);
  return part;
}

bool check_rows(const Case& c, const Call& call, const Backend& backend) {
  const auto whole = run<float>(call, backend);
  const int64_t cut = c.attrs.rows / 3;
  Value parts = call.out[0].second;
  for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, cut}, {cut, c.attrs.rows}}) {
    const std::vector<double> rows = run<float>(rows_of(call, from, to), backend).at("y").real;
    std::copy(rows.begin(), rows.end(), parts.real.begin() + from * c.attrs.out);
  }
  return report("chunks", call.op, backend.name, c.label,
                same_bits(parts, whole.at("y")) ? "" : "y in chunks has other bits than at once");
}

// --- A chunk of routed rows has the same bits as in a call for all rows. It is computed only from
// its own rows, and no other row is touched.

// For each routed row, in order of local expert, source rank and slot, whether it belongs to the
// call's chunk.
std::vector<bool> rows_of_chunk(const Call& call, int64_t rows) {
  const Attrs& a = call.attrs;
  const Value& counts = *find(call.in, "allCounts");
  const int64_t size = a.expertParallelSize, local = a.experts / size;
  std::vector<bool> inside(rows, false);
  int64_t row = 0;
  for (int64_t e = a.rank % size * local; e < (a.rank % size + 1) * local; e++) {
    for (int64_t q = a.rank - a.rank % size; q < a.rank - a.rank % size + size; q++) {
      const int64_t kept = std::min<int64_t>(counts.whole[q * a.experts + e], a.capacity);
      for (int64_t slot = 0; slot < kept; slot++, row++)
        inside[row] = kept * a.chunk / a.chunks <= slot && slot < kept * (a.chunk + 1) / a.chunks;
    }
  }
  return inside;
}

// The call with NaN in every input row outside the chunk.
Call poisoned(Call call, const std::vector<bool>& inside) {
  for (const BufferSpec& spec : inputs_of(call.op)) {
    if (spec.extent != Extent::kRouted) continue;
    Value& value = *find(call.in, spec.name);
    const size_t width = value.real.size() / inside.size();
    for (size_t i = 0; i < value.real.size(); i++)
      if (!inside[i / width]) value.real[i] = std::numeric_limits<double>::quiet_NaN();
  }
  return call;
}

// Runs one chunk after another. The rows of a chunk must be those of `whole`; all other rows must
// stay as they were.
std::string check_chunks_of(Call call, int64_t chunks, const Value& whole, const Case& c, const Backend& backend) {
  call.attrs.chunks = chunks;
  for (int64_t i = 0; i < chunks; i++) {
    call.attrs.chunk = i;
    const std::vector<bool> inside = rows_of_chunk(call, c.routed);
    const auto got = run<float>(poisoned(call, inside), backend, static_cast<int>(1 + i % 3));
    auto& [name, value] = call.out[0];
    const Value& now = got.at(name);
    const size_t width = now.real.size() / inside.size();
    for (size_t j = 0; j < now.real.size(); j++) {
      const bool mine = inside[j / width];
      if (now.real[j] == (mine ? whole : value).real[j]) continue;
      return "chunk " + std::to_string(i) + " of " + std::to_string(chunks) + ": " + name + "[" + std::to_string(j) +
             (mine ? "] has other bits than at once" : "] was touched, but belongs to another chunk");
    }
    value = now;
  }
  return same_bits(call.out[0].second, whole) ? "" : "all chunks together leave rows out";
}

bool check_routed_chunks(const Case& c, const Call& call, const Backend& backend) {
  const Value whole = run<float>(call, backend).at(call.out[0].first);
  std::string problem;
  for (const int64_t chunks : {2, 4, 8})
    if (problem.empty()) problem = check_chunks_of(call, chunks, whole, c, backend);
  return report("chunks", call.op, backend.name, c.label, problem);
}

}  // namespace

bool check_chunks(const Case& c, const Backend& backend) {
  bool right = true;
  if (c.op == "linear" && c.attrs.rows >= 7) right &= check_rows(c, forward_call(c), backend);
  if (c.routed > 0) {
    right &= check_routed_chunks(c, forward_call(c), backend);
    for (const std::string& op : backward_of(c.op))
      if (takes(op, "chunk")) right &= check_routed_chunks(c, backward_call(c, op, false), backend);
  }
  return right;
}

namespace {

// --- Query heads that share keys and values give the same results as heads with copies of them.

// Reorders the heads of head_dim values in each row: head i of the new row is head from[i] of the
// old.
Value take_heads(const Value& rows, int64_t heads, int64_t head_dim, const std::vector<int64_t>& from) {
  Value taken;
  for (int64_t n = 0; n < rows.elements() / (heads * head_dim); n++)
    for (const int64_t head : from) {
      const auto first = rows.real.begin() + (n * heads + head) * head_dim;
      taken.real.insert(taken.real.end(), first, first + head_dim);
    }
  return taken;
}

bool check_shared_heads(const Case& c, const Backend& backend) {
  const Attrs& a = c.attrs;
  const int64_t h = a.heads, kv = a.keyValueHeads, head_dim = a.dim / h;
  std::vector<int64_t> heads(3 * h);  // the head of keys or values of each query head
  for (int64_t i = 0; i < h; i++) heads[i] = i, heads[h + i] = h + i / (h / kv), heads[2 * h + i] = heads[h + i] + kv;
  Case copies = c;
  copies.attrs.keyValueHeads = h;
  copies.inputs["qkv"] = take_heads(c.inputs.at("qkv"), h + 2 * kv, head_dim, heads);
  const auto want = run<float>(forward_call(copies), backend), got = run<float>(forward_call(c), backend);
  std::string problem;
  for (const char* name : {"o", "lse"})
    if (!same_bits(want.at(name), got.at(name))) problem = std::string(name) + " has other bits than with copies";

  const Value dcopies = run<float>(backward_call(copies, "attention_backward", false), backend).at("dqkv");
  const Value dshared = run<float>(backward_call(c, "attention_backward", false), backend).at("dqkv");
  Value sums{false, std::vector<double>(dshared.real.size(), 0), {}};
  const int64_t row = h + 2 * kv;
  for (int64_t i = 0; i < dcopies.elements(); i++) {
    const int64_t n = i / (3 * h * head_dim), head = heads[i / head_dim % (3 * h)];
    sums.real[(n * row + head) * head_dim + i % head_dim] += dcopies.real[i];
  }
  if (problem.empty()) problem = difference("dqkv", dshared, sums, kTolerance).first;
  return report("shared heads", c.op, backend.name, c.label, problem);
}

// --- A rotation and its inverse restore queries and keys. Values never change.

bool check_turn_back(const Case& c, const Backend& backend) {
  Call call = forward_call(c);
  const Value before = call.out[0].second;
  call.out[0].second = run<float>(call, backend).at("qkv");
  call.attrs.inverse = 1 - call.attrs.inverse;
  return report("turn back", c.op, backend.name, c.label,
                difference("qkv", run<float>(call, backend).at("qkv"), before, 1e-5).first);
}

// --- The gradient of logits may be written to the buffer of the logits.

bool check_in_place(const Case& c, const Backend& backend) {
  Call call = forward_call(c);
  const auto apart = run<float>(call, backend);
  call.in_place = true;
  std::string problem;
  for (const auto& [name, value] : run<float>(call, backend))
    if (!same_bits(value, apart.at(name))) problem = name + " has other bits than with dlogits beside the logits";
  return report("in place", c.op, backend.name, c.label, problem);
}

// --- No token chooses the expert that is taken from it, and nothing else changes.

std::string taken_problem(const Case& c, const std::map<std::string, Value>& open,
                          const std::map<std::string, Value>& barred) {
  const int64_t k = c.attrs.topK;
  const auto &free = open.at("expert").whole, &left = barred.at("expert").whole, &taken = c.inputs.at("taken").whole;
  if (!same_bits(open.at("probs"), barred.at("probs"))) return "probs know what is taken";
  for (int64_t n = 0; n < c.attrs.rows; n++) {
    const auto first = free.begin() + n * k, mine = left.begin() + n * k;
    const std::string token = "token " + std::to_string(n);
    if (std::count(mine, mine + k, taken[n]) > 0) return token + " chose the expert that was taken";
    // The token's choices without `taken`, except the expert that is taken. They stay its first
    // choices.
    std::vector<int32_t> rest;
    std::copy_if(first, first + k, std::back_inserter(rest), [&](int32_t e) { return e != taken[n]; });
    if (!std::equal(rest.begin(), rest.end(), mine)) return token + " gave up an expert that was not taken";
  }
  return "";
}

bool check_taken(const Case& c, const Backend& backend) {
  Case open = c;
  open.inputs.erase("taken");
  const auto before = run<float>(forward_call(open), backend), after = run<float>(forward_call(c), backend);
  return report("taken", c.op, backend.name, c.label, taken_problem(c, before, after));
}

}  // namespace

bool check_properties(const Backend& backend, const std::string& filter) {
  bool right = true;
  for (const Case& c : all_cases()) {
    if (!(c.op + " " + c.label).starts_with(filter)) continue;
    right &= check_chunks(c, backend);
    if (c.op == "attention" && c.attrs.keyValueHeads < c.attrs.heads) right &= check_shared_heads(c, backend);
    if (c.op == "rope") right &= check_turn_back(c, backend);
    if (c.outputs.contains("dlogits")) right &= check_in_place(c, backend);
    if (c.inputs.contains("taken")) right &= check_taken(c, backend);
  }
  return right;
}

}  // namespace scmoe::test

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "case.h"

namespace scmoe::test {

const std::vector<Signature> kSignatures = {
    {"embedding", "tokens wte wpe", "x", "batch sequence dim"},
    {"embedding_backward", "tokens dx", "dwte+= dwpe+=", "batch sequence dim"},
    {"layernorm", "x gamma beta", "y mean rstd", "rows dim"},
    {"layernorm_backward", "dy x gamma mean rstd", "dx dgamma+= dbeta+=", "rows dim accumulate"},
    {"linear", "x w b residual?", "y", "rows in out"},
    {"linear_dgrad", "dy w", "dx", "rows in out accumulate"},
    {"linear_wgrad", "dy x", "dw+= db+=", "rows in out"},
    {"attention", "qkv", "o lse", "batch sequence heads dim"},
    {"attention_backward", "do qkv o lse", "dqkv", "batch sequence heads dim"},
    {"gelu", "x allCounts?", "y", "rows dim experts capacity rank expertParallelSize"},
    {"gelu_backward", "dy x allCounts?", "dx", "rows dim experts capacity rank expertParallelSize"},
    {"router", "x w", "probs expert weight slot counts", "rows dim experts topK capacity"},
    {"router_backward", "dweight probs expert weight slot allCounts x w",
     "dx dw+=", "rows dim experts topK capacity worldSize auxCoefficient accumulate"},
    {"aux_loss", "probs allCounts", "loss", "rows experts topK worldSize"},
    {"permute", "x expert slot counts", "rows", "rows dim experts topK capacity"},
    {"permute_backward", "drows expert slot counts", "dx", "rows dim experts topK capacity accumulate"},
    {"unpermute", "rows expert slot counts weight", "y", "rows dim experts topK capacity"},
    {"unpermute_backward", "dy rows expert slot counts weight", "drows dweight", "rows dim experts topK capacity"},
    {"grouped_linear", "x w b allCounts", "y", "in out experts capacity rank expertParallelSize"},
    {"grouped_linear_dgrad", "dy w allCounts", "dx", "in out experts capacity rank expertParallelSize"},
    {"grouped_linear_wgrad", "dy x allCounts", "dw+= db+=", "in out experts capacity rank expertParallelSize"},
    {"shared_gate", "x w", "c", "rows dim"},
    {"shared_gate_backward", "dc c x w", "dx dw+=", "rows dim accumulate"},
    {"gated_add", "a s c m", "y", "rows dim"},
    {"gated_add_backward", "dy s c", "ds dc", "rows dim"},
    {"add", "a b", "y", "rows dim"},
    {"cross_entropy", "logits tokens", "loss dlogits?", "batch sequence vocabulary scale"},
    {"zero", "", "buffers...", ""},
    {"square_sum", "buffers...", "y", ""},
    {"global_norm", "dense expert", "norm", ""},
    {"adamw", "g hyper norm", "w m+= v+=", "elements beta1 beta2 epsilon weightDecay clip"},
};

namespace {

const Signature& signature_of(const std::string& op) {
  for (const Signature& s : kSignatures)
    if (s.op == op) return s;
  throw std::runtime_error("no signature for op " + op);
}

bool strip(std::string& text, const std::string& suffix) {
  if (!text.ends_with(suffix)) return false;
  text.resize(text.size() - suffix.size());
  return true;
}

std::vector<Name> parse(const char* names) {
  std::vector<Name> parsed;
  std::istringstream words(names);
  for (Name name; words >> name.text; parsed.push_back(name)) {
    name.optional = strip(name.text, "?");
    name.accumulated = strip(name.text, "+=");
    name.list = strip(name.text, "...");
  }
  return parsed;
}

}  // namespace

std::vector<Name> inputs_of(const std::string& op) {
  return parse(signature_of(op).inputs);
}
std::vector<Name> outputs_of(const std::string& op) {
  return parse(signature_of(op).outputs);
}

std::vector<std::string> backward_of(const std::string& op) {
  std::vector<std::string> found;
  for (const Signature& s : kSignatures)
    for (const char* suffix : {"_backward", "_dgrad", "_wgrad"})
      if (s.op == op + suffix) found.push_back(s.op);
  return found;
}

bool accumulates(const std::string& op) {
  for (const Name& name : parse(signature_of(op).attrs))
    if (name.text == "accumulate") return true;
  return false;
}

}  // namespace scmoe::test

#include "op_table.h"

#include <sstream>

namespace scmoe {
namespace {

#define ROUTE "rows dim experts topK capacity"
#define GROUP "experts capacity rank expertParallelSize"
#define CHUNK "chunk chunks"

using A = const Attrs&;

double tokens_of(A a) {
  return double(a.batch) * double(a.sequence + 1);
}
double x_of(A a) {
  return double(a.batch) * a.sequence * a.dim;
}
double lse_of(A a) {
  return double(a.batch) * a.heads * a.sequence;
}
// (H + 2 KV) d / H values a token
double qkv_of(A a) {
  const double head_dim = a.heads > 0 ? double(a.dim) / a.heads : 0;
  return double(a.batch) * a.sequence * (double(a.heads) + 2 * double(a.keyValueHeads)) * head_dim;
}
double rows_dim(A a) {
  return double(a.rows) * a.dim;
}
double choices(A a) {
  return double(a.rows) * a.topK;
}
double gates(A a) {
  return double(a.rows) * a.coefficients;
}
double gate_weights(A a) {
  return double(a.coefficients) * a.dim;
}
double local_experts(A a) {
  return a.expertParallelSize > 0 ? double(a.experts) / a.expertParallelSize : 0;
}
double expert_weights(A a) {
  return local_experts(a) * a.out * a.in;
}

Extents unknown(A, double) {
  return {};
}

// Routed rows are bounded by counts that exist only at run time: their extents are 0 here, and checked where they cross
// the network.
const std::vector<OpSpec> kTable = {
    {"embedding", false, "tokens wte wpe?", "x*", "batch sequence dim",
     [](A a, double) {
       return Extents{{tokens_of(a), 0, double(a.sequence) * a.dim}, {x_of(a)}};
     }},
    {"embedding_backward", false, "tokens dx*", "dwte+= dwpe+=?", "batch sequence dim",
     [](A a, double) {
       return Extents{{tokens_of(a), x_of(a)}, {0, double(a.sequence) * a.dim}};
     }},

    {"layernorm", false, "x* gamma beta", "y* mean rstd", "rows dim",
     [](A a, double) {
       return Extents{{rows_dim(a), double(a.dim), double(a.dim)}, {rows_dim(a), double(a.rows), double(a.rows)}};
     }},
    {"layernorm_backward", false, "dy* x* gamma mean rstd", "dx* dgamma+= dbeta+=", "rows dim accumulate",
     [](A a, double) {
       return Extents{{rows_dim(a), rows_dim(a), double(a.dim), double(a.rows), double(a.rows)},
                      {rows_dim(a), double(a.dim), double(a.dim)}};
     }},
    {"rmsnorm", false, "x* gamma", "y* rstd", "rows dim",
     [](A a, double) {
       return Extents{{rows_dim(a), double(a.dim)}, {rows_dim(a), double(a.rows)}};
     }},
    {"rmsnorm_backward", false, "dy* x* gamma rstd", "dx* dgamma+=", "rows dim accumulate",
     [](A a, double) {
       return Extents{{rows_dim(a), rows_dim(a), double(a.dim), double(a.rows)}, {rows_dim(a), double(a.dim)}};
     }},

    {"linear", false, "x* w* b*? residual*?", "y*", "rows in out bias",
     [](A a, double) {
       const double y = double(a.rows) * a.out, third = a.bias ? double(a.out) : y;
       return Extents{{double(a.rows) * a.in, double(a.out) * a.in, third, y}, {y}};
     }},
    {"linear_dgrad", false, "dy* w*", "dx*", "rows in out accumulate",
     [](A a, double) {
       return Extents{{double(a.rows) * a.out, double(a.out) * a.in}, {double(a.rows) * a.in}};
     }},
    {"linear_wgrad", false, "dy* x*", "dw+= db+=?", "rows in out",
     [](A a, double) {
       return Extents{{double(a.rows) * a.out, double(a.rows) * a.in}, {double(a.out) * a.in, double(a.out)}};
     }},

    {"attention", false, "qkv*", "o* lse", "batch sequence heads keyValueHeads dim",
     [](A a, double) {
       return Extents{{qkv_of(a)}, {x_of(a), lse_of(a)}};
     }},
    {"attention_backward", false, "do* qkv* o* lse", "dqkv*", "batch sequence heads keyValueHeads dim",
     [](A a, double) {
       return Extents{{x_of(a), qkv_of(a), x_of(a), lse_of(a)}, {qkv_of(a)}};
     }},
    {"rope", false, "", "qkv*+=", "batch sequence heads keyValueHeads dim base inverse",
     [](A a, double) {
       return Extents{{}, {qkv_of(a)}};
     }},

    {"gelu", false, "x*# allCounts?", "y*#", "rows dim " GROUP " " CHUNK, unknown},
    {"gelu_backward", false, "dy*# x*# allCounts?", "dx*#", "rows dim " GROUP " " CHUNK, unknown},
    {"swiglu", false, "x*# allCounts?", "y*#", "rows dim " GROUP " " CHUNK, unknown},
    {"swiglu_backward", false, "dy*# x*# allCounts?", "dx*#", "rows dim " GROUP " " CHUNK, unknown},

    {"router", false, "x* w taken?", "probs expert weight slot counts lse?", ROUTE,
     [](A a, double) {
       return Extents{
           {rows_dim(a), double(a.experts) * a.dim, double(a.rows)},
           {double(a.rows) * a.experts, choices(a), choices(a), choices(a), double(a.experts), double(a.rows)}};
     }},
    {"router_backward", false, "dweight probs expert weight slot allCounts x* w lse?",
     "dx* dw+=", ROUTE " worldSize auxCoefficient zCoefficient accumulate",
     [](A a, double world) {
       const double w = double(a.experts) * a.dim;
       return Extents{{choices(a), double(a.rows) * a.experts, choices(a), choices(a), choices(a), world * a.experts,
                       rows_dim(a), w, double(a.rows)},
                      {rows_dim(a), w}};
     }},
    {"aux_loss", false, "probs allCounts", "loss", "rows experts topK worldSize scale accumulate",
     [](A a, double world) {
       return Extents{{double(a.rows) * a.experts, world * a.experts}, {1}};
     }},
    {"z_loss", false, "lse", "loss", "rows scale accumulate",
     [](A a, double) {
       return Extents{{double(a.rows)}, {1}};
     }},

    {"permute", false, "x* expert slot counts", "rows*", ROUTE,
     [](A a, double) {
       return Extents{{rows_dim(a), choices(a), choices(a), double(a.experts)}, {0}};
     }},
    {"permute_backward", false, "drows* expert slot counts", "dx*", ROUTE " accumulate",
     [](A a, double) {
       return Extents{{0, choices(a), choices(a), double(a.experts)}, {rows_dim(a)}};
     }},
    {"unpermute", false, "rows* expert slot counts weight", "y*", ROUTE,
     [](A a, double) {
       return Extents{{0, choices(a), choices(a), double(a.experts), choices(a)}, {rows_dim(a)}};
     }},
    {"unpermute_backward", false, "dy* rows* expert slot counts weight", "drows* dweight", ROUTE,
     [](A a, double) {
       return Extents{{rows_dim(a), 0, choices(a), choices(a), double(a.experts), choices(a)}, {0, choices(a)}};
     }},

    {"grouped_linear", false, "x*# w* allCounts b*?", "y*#", "in out " GROUP " " CHUNK,
     [](A a, double world) {
       return Extents{{0, expert_weights(a), world * a.experts, local_experts(a) * a.out}, {0}};
     }},
    {"grouped_linear_dgrad", false, "dy*# w* allCounts", "dx*#", "in out " GROUP " " CHUNK,
     [](A a, double world) {
       return Extents{{0, expert_weights(a), world * a.experts}, {0}};
     }},
    {"grouped_linear_wgrad", false, "dy* x* allCounts", "dw+= db+=?", "in out " GROUP,
     [](A a, double world) {
       return Extents{{0, 0, world * a.experts}, {expert_weights(a), local_experts(a) * a.out}};
     }},

    {"shared_gate", false, "x* w", "c", "rows dim coefficients",
     [](A a, double) {
       return Extents{{rows_dim(a), gate_weights(a)}, {gates(a)}};
     }},
    {"shared_gate_backward", false, "dc c x* w", "dx* dw+=", "rows dim coefficients accumulate",
     [](A a, double) {
       return Extents{{gates(a), gates(a), rows_dim(a), gate_weights(a)}, {rows_dim(a), gate_weights(a)}};
     }},
    {"gated_add", false, "a* s* c m*", "y*", "rows dim coefficients",
     [](A a, double) {
       return Extents{{rows_dim(a), rows_dim(a), gates(a), rows_dim(a)}, {rows_dim(a)}};
     }},
    {"gated_add_backward", false, "dy* s* c m*?", "ds* dc", "rows dim coefficients",
     [](A a, double) {
       return Extents{{rows_dim(a), rows_dim(a), gates(a), rows_dim(a)}, {rows_dim(a), gates(a)}};
     }},
    {"scale_rows", false, "x* c", "y*", "rows dim",
     [](A a, double) {
       return Extents{{rows_dim(a), 2 * double(a.rows)}, {rows_dim(a)}};
     }},
    {"add", false, "a* b*", "y*", "rows dim",
     [](A a, double) {
       return Extents{{rows_dim(a), rows_dim(a)}, {rows_dim(a)}};
     }},

    {"cross_entropy", false, "logits* tokens", "loss dlogits*?", "batch sequence vocabulary scale accumulate",
     [](A a, double) {
       const double logits = double(a.batch) * a.sequence * a.vocabulary;
       return Extents{{logits, tokens_of(a)}, {1, logits}};
     }},

    {"cast", false, "buffers...", "copies*...", "", unknown},
    {"zero", false, "", "buffers...", "", unknown},
    {"square_sum", false, "buffers...", "y", "", unknown},
    {"global_norm", false, "dense expert", "norm", "",
     [](A, double) {
       return Extents{{1, 1}, {1}};
     }},
    {"adamw", false, "g hyper norm", "w m+= v+=", "elements beta1 beta2 epsilon weightDecay clip",
     [](A a, double) {
       const double n = double(a.elements);
       return Extents{{n, 4, 1}, {n, n, n}};
     }},

    {"all_gather_counts", true, "counts", "allCounts", "experts",
     [](A a, double world) {
       return Extents{{double(a.experts)}, {world * a.experts}};
     }},
    {"all_to_all", true, "rows*# allCounts", "out*#", "direction dim " GROUP " " CHUNK,
     [](A a, double world) {
       return Extents{{0, world * a.experts}, {0}};
     }},
    {"all_reduce", true, "buffers...", "buffers...", "group", unknown},
};

}  // namespace

const std::vector<OpSpec>& op_table() {
  return kTable;
}

const OpSpec* find_op(std::string_view name) {
  for (const OpSpec& spec : kTable) {
    if (name == spec.name) return &spec;
  }
  return nullptr;
}

std::vector<std::string> words(const char* row) {
  std::istringstream stream(row);
  std::vector<std::string> found;
  for (std::string word; stream >> word;) found.push_back(word);
  return found;
}

}  // namespace scmoe

// The ops of the backbone, the loss and the update.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/reference.h"

namespace scmoe::reference {

template <class Real>
void embedding(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int32_t* tokens = in<int32_t>(call, 0);
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t t = 0; t < a.sequence; t++)
      for (int64_t j = 0; j < a.dim; j++)
        out<Real>(call, 0)[(b * a.sequence + t) * a.dim + j] =
            in<Real>(call, 1)[tokens[b * (a.sequence + 1) + t] * a.dim + j] + in<Real>(call, 2)[t * a.dim + j];
}

template <class Real>
void embedding_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int32_t* tokens = in<int32_t>(call, 0);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t t = 0; t < a.sequence; t++) {
      for (int64_t j = 0; j < a.dim; j++) {
        const Real d = in<Real>(call, 1)[(b * a.sequence + t) * a.dim + j];
        out<Real>(call, 0)[tokens[b * (a.sequence + 1) + t] * a.dim + j] += d;
        out<Real>(call, 1)[t * a.dim + j] += d;
      }
    }
  }
}

template <class Real>
void layernorm(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* x = in<Real>(call, 0) + n * a.dim;
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < a.dim; j++) mean += x[j];
    mean /= a.dim;
    for (int64_t j = 0; j < a.dim; j++) variance += (x[j] - mean) * (x[j] - mean);
    const double rstd = 1 / std::sqrt(variance / a.dim + 1e-5);
    for (int64_t j = 0; j < a.dim; j++)
      out<Real>(call, 0)[n * a.dim + j] = (x[j] - mean) * rstd * in<Real>(call, 1)[j] + in<Real>(call, 2)[j];
    out<Real>(call, 1)[n] = mean;
    out<Real>(call, 2)[n] = rstd;
  }
}

template <class Real>
void layernorm_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const Real* gamma = in<Real>(call, 2);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real *dy = in<Real>(call, 0) + n * a.dim, *x = in<Real>(call, 1) + n * a.dim;
    const double mean = in<Real>(call, 3)[n], rstd = in<Real>(call, 4)[n];
    double mean_g = 0, mean_gx = 0;
    for (int64_t j = 0; j < a.dim; j++) {
      mean_g += 1.0 * dy[j] * gamma[j] / a.dim;
      mean_gx += 1.0 * dy[j] * gamma[j] * (x[j] - mean) * rstd / a.dim;
    }
    for (int64_t j = 0; j < a.dim; j++) {
      const double xhat = (x[j] - mean) * rstd;
      Real& dx = out<Real>(call, 0)[n * a.dim + j];
      dx = (a.accumulate ? dx : 0) + rstd * (1.0 * dy[j] * gamma[j] - mean_g - xhat * mean_gx);
      out<Real>(call, 1)[j] += dy[j] * xhat;
      out<Real>(call, 2)[j] += dy[j];
    }
  }
}

template <class Real>
void linear(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t o = 0; o < a.out; o++) {
      double y = in<Real>(call, 2)[o];
      for (int64_t i = 0; i < a.in; i++) y += 1.0 * in<Real>(call, 0)[n * a.in + i] * in<Real>(call, 1)[o * a.in + i];
      if (call.num_in > 3) y += in<Real>(call, 3)[n * a.out + o];
      out<Real>(call, 0)[n * a.out + o] = y;
    }
  }
}

template <class Real>
void linear_dgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t i = 0; i < a.in; i++) {
      Real& dx = out<Real>(call, 0)[n * a.in + i];
      double sum = a.accumulate ? dx : 0;
      for (int64_t o = 0; o < a.out; o++)
        sum += 1.0 * in<Real>(call, 0)[n * a.out + o] * in<Real>(call, 1)[o * a.in + i];
      dx = sum;
    }
  }
}

template <class Real>
void linear_wgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t o = 0; o < a.out; o++) {
    double db = out<Real>(call, 1)[o];
    for (int64_t n = 0; n < a.rows; n++) db += in<Real>(call, 0)[n * a.out + o];
    out<Real>(call, 1)[o] = db;
    for (int64_t i = 0; i < a.in; i++) {
      double dw = out<Real>(call, 0)[o * a.in + i];
      for (int64_t n = 0; n < a.rows; n++)
        dw += 1.0 * in<Real>(call, 0)[n * a.out + o] * in<Real>(call, 1)[n * a.in + i];
      out<Real>(call, 0)[o * a.in + i] = dw;
    }
  }
}

// p[s] = softmax over s <= t of <q[t], k[s]> / sqrt(head_dim); returns the log-sum-exp. q, k: one head of qkv, its rows
// 3 d apart.
template <class Real>
double attention_row(const Attrs& a, const Real* q, const Real* k, int64_t t, std::vector<double>& p) {
  const int64_t head_dim = a.dim / a.heads;
  double top = -INFINITY, total = 0;
  for (int64_t s = 0; s <= t; s++) {
    p[s] = 0;
    for (int64_t c = 0; c < head_dim; c++)
      p[s] += 1.0 * q[t * 3 * a.dim + c] * k[s * 3 * a.dim + c] / std::sqrt(1.0 * head_dim);
    top = std::max(top, p[s]);
  }
  for (int64_t s = 0; s <= t; s++) total += std::exp(p[s] - top);
  for (int64_t s = 0; s <= t; s++) p[s] = std::exp(p[s] - top) / total;
  return top + std::log(total);
}

template <class Real>
void attention(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int64_t head_dim = a.dim / a.heads;
  std::vector<double> p(a.sequence);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t h = 0; h < a.heads; h++) {
      const Real* q = in<Real>(call, 0) + b * a.sequence * 3 * a.dim + h * head_dim;
      const Real *k = q + a.dim, *v = q + 2 * a.dim;
      for (int64_t t = 0; t < a.sequence; t++) {
        out<Real>(call, 1)[(b * a.heads + h) * a.sequence + t] = attention_row(a, q, k, t, p);
        for (int64_t c = 0; c < head_dim; c++) {
          double o = 0;
          for (int64_t s = 0; s <= t; s++) o += p[s] * v[s * 3 * a.dim + c];
          out<Real>(call, 0)[(b * a.sequence + t) * a.dim + h * head_dim + c] = o;
        }
      }
    }
  }
}

// dP = dO V^T, dS = P (dP - <dO, O>), dQ = dS K / sqrt(head_dim), dK = dS^T Q / sqrt(head_dim), dV = P^T dO.
template <class Real>
void attention_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int64_t head_dim = a.dim / a.heads, row = 3 * a.dim;
  const double scale = 1 / std::sqrt(1.0 * head_dim);
  std::vector<double> p(a.sequence), sum(a.batch * a.sequence * row, 0.0);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t h = 0; h < a.heads; h++) {
      const Real* q = in<Real>(call, 1) + b * a.sequence * row + h * head_dim;
      const Real *k = q + a.dim, *v = q + 2 * a.dim;
      double* dq = sum.data() + b * a.sequence * row + h * head_dim;
      double *dk = dq + a.dim, *dv = dq + 2 * a.dim;
      for (int64_t t = 0; t < a.sequence; t++) {
        attention_row(a, q, k, t, p);
        const int64_t at = (b * a.sequence + t) * a.dim + h * head_dim;
        const Real *grad = in<Real>(call, 0) + at, *o = in<Real>(call, 2) + at;
        double inner = 0;
        for (int64_t c = 0; c < head_dim; c++) inner += 1.0 * grad[c] * o[c];
        for (int64_t s = 0; s <= t; s++) {
          double dp = 0;
          for (int64_t c = 0; c < head_dim; c++) dp += 1.0 * grad[c] * v[s * row + c];
          const double ds = p[s] * (dp - inner) * scale;
          for (int64_t c = 0; c < head_dim; c++) {
            dq[t * row + c] += ds * k[s * row + c];
            dk[s * row + c] += ds * q[t * row + c];
            dv[s * row + c] += p[s] * grad[c];
          }
        }
      }
    }
  }
  std::copy(sum.begin(), sum.end(), out<Real>(call, 0));
}

template <class Real>
void shared_gate(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    double z = 0;
    for (int64_t j = 0; j < a.dim; j++) z += 1.0 * in<Real>(call, 0)[n * a.dim + j] * in<Real>(call, 1)[j];
    out<Real>(call, 0)[n] = 1 / (1 + std::exp(-z));
  }
}

template <class Real>
void shared_gate_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    const double c = in<Real>(call, 1)[n], dz = in<Real>(call, 0)[n] * c * (1 - c);
    for (int64_t j = 0; j < a.dim; j++) {
      Real& dx = out<Real>(call, 0)[n * a.dim + j];
      dx = (a.accumulate ? dx : 0) + dz * in<Real>(call, 3)[j];
      out<Real>(call, 1)[j] += dz * in<Real>(call, 2)[n * a.dim + j];
    }
  }
}

template <class Real>
void gated_add(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t i = 0; i < a.rows * a.dim; i++)
    out<Real>(call, 0)[i] =
        in<Real>(call, 0)[i] + in<Real>(call, 2)[i / a.dim] * in<Real>(call, 1)[i] + in<Real>(call, 3)[i];
}

template <class Real>
void gated_add_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    double dc = 0;
    for (int64_t j = n * a.dim; j < (n + 1) * a.dim; j++) {
      out<Real>(call, 0)[j] = in<Real>(call, 2)[n] * in<Real>(call, 0)[j];
      dc += 1.0 * in<Real>(call, 0)[j] * in<Real>(call, 1)[j];
    }
    out<Real>(call, 1)[n] = dc;
  }
}

template <class Real>
void add(const OpCall& call, Stream*) {
  for (int64_t i = 0; i < call.attrs->rows * call.attrs->dim; i++)
    out<Real>(call, 0)[i] = in<Real>(call, 0)[i] + in<Real>(call, 1)[i];
}

template <class Real>
void cross_entropy(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  double loss = 0;
  for (int64_t n = 0; n < a.batch * a.sequence; n++) {
    const Real* x = in<Real>(call, 0) + n * a.vocabulary;
    const int32_t target = in<int32_t>(call, 1)[n / a.sequence * (a.sequence + 1) + n % a.sequence + 1];
    const double top = *std::max_element(x, x + a.vocabulary);
    double total = 0;
    for (int64_t v = 0; v < a.vocabulary; v++) total += std::exp(x[v] - top);
    loss += top + std::log(total) - x[target];
    for (int64_t v = 0; call.num_out > 1 && v < a.vocabulary;
         v++)  // dlogits may be logits: x[v] is read for the last time here
      out<Real>(call, 1)[n * a.vocabulary + v] = a.scale * (std::exp(x[v] - top) / total - (v == target));
  }
  out<Real>(call, 0)[0] = a.scale * loss;
}

template <class Real>
void zero(const OpCall& call, Stream*) {
  for (int i = 0; i < call.num_out; i++) std::fill_n(out<Real>(call, i), call.out_elements[i], Real{0});
}

template <class Real>
void square_sum(const OpCall& call, Stream*) {
  double sum = 0;
  for (int i = 0; i < call.num_in; i++)
    for (int64_t j = 0; j < call.in_elements[i]; j++) sum += 1.0 * in<Real>(call, i)[j] * in<Real>(call, i)[j];
  out<Real>(call, 0)[0] = sum;
}

template <class Real>
void global_norm(const OpCall& call, Stream*) {
  out<Real>(call, 0)[0] = std::sqrt(1.0 * in<Real>(call, 0)[0] + in<Real>(call, 1)[0]);
}

template <class Real>
void adamw(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const Real *hyper = in<Real>(call, 1), norm = in<Real>(call, 2)[0];
  Real *w = out<Real>(call, 0), *m = out<Real>(call, 1), *v = out<Real>(call, 2);
  for (int64_t i = 0; i < a.elements; i++) {
    const double g = in<Real>(call, 0)[i] * std::min(1.0, 1.0 * a.clip / norm);
    m[i] = 1.0 * a.beta1 * m[i] + (1.0 - a.beta1) * g;
    v[i] = 1.0 * a.beta2 * v[i] + (1.0 - a.beta2) * g * g;
    w[i] -= hyper[0] * (m[i] / hyper[1] / (std::sqrt(v[i] / hyper[2]) + a.epsilon) + a.weightDecay * w[i]);
  }
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(embedding)
SCMOE_INSTANTIATE(embedding_backward)
SCMOE_INSTANTIATE(layernorm)
SCMOE_INSTANTIATE(layernorm_backward)
SCMOE_INSTANTIATE(linear)
SCMOE_INSTANTIATE(linear_dgrad)
SCMOE_INSTANTIATE(linear_wgrad)
SCMOE_INSTANTIATE(attention)
SCMOE_INSTANTIATE(attention_backward)
SCMOE_INSTANTIATE(shared_gate)
SCMOE_INSTANTIATE(shared_gate_backward)
SCMOE_INSTANTIATE(gated_add)
SCMOE_INSTANTIATE(gated_add_backward)
SCMOE_INSTANTIATE(add)
SCMOE_INSTANTIATE(cross_entropy)
SCMOE_INSTANTIATE(zero)
SCMOE_INSTANTIATE(square_sum)
SCMOE_INSTANTIATE(global_norm)
SCMOE_INSTANTIATE(adamw)

}  // namespace scmoe::reference

// The most by which attention in bf16 may differ from the reference, element by element.
//
// u = 2^-8 is the unit roundoff of bf16: a rounded x is x (1 + e) with |e| <= u. Inputs are bf16 in
// both computations; scores, softmax, delta and all sums are fp32. To first order two roundings
// remain:
//   1. On tensor cores (heads of 64 and 128) operands are rounded before they are multiplied: P for
//      o = P V / sum(P) and for dV = P^T dO, dS for dQ = dS K and dK = dS^T Q. A result
//      y = sum_i w_i x_i becomes sum_i w_i (1 + e_i) x_i. The error is at most u sum_i |w_i x_i|
//      (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). Rounding errors are
//      independent and have mean 0, so except for one element in 10^10 (2 exp(-l^2 / 2), l = 7;
//      Hoeffding; see Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019) it is also at most
//      l u sqrt(sum_i (w_i x_i)^2), which is less from about 100 terms on.
//   2. Every result is rounded when it is written: u |y|.
// The sum runs over the row's keys (o, dQ), or over the column's queries of all heads of a group
// (dK, dV), so it grows with the sequence length. The head size matters only in fp32, as the depth
// of scores and dP. kTolerance covers fp32, as it does in every kernel, and terms in u^2.
#include <algorithm>
#include <cmath>

#include "check.h"

namespace scmoe::test {
namespace {

constexpr double kUnit = 1.0 / 256, kDeviations = 7;

// The sums of |w x| and of its square, for each element of a result.
struct Terms {
  std::vector<double> size, square;
  explicit Terms(int64_t elements) : size(elements), square(elements) {}
  void add(int64_t at, double term) { size[at] += std::abs(term), square[at] += term * term; }
  double error(size_t at) const { return kUnit * std::min(size[at], kDeviations * std::sqrt(square[at])); }
};

// One query head of one sequence.
struct Head {
  const Attrs& a;
  const std::vector<double>& qkv;
  int64_t b, h;

  int64_t width() const { return a.dim / a.heads; }
  int64_t row(int64_t t) const { return (b * a.sequence + t) * (a.heads + 2 * a.keyValueHeads) * width(); }
  int64_t query(int64_t t) const { return row(t) + h * width(); }
  int64_t key(int64_t t) const { return row(t) + (a.heads + h / (a.heads / a.keyValueHeads)) * width(); }
  int64_t value(int64_t t) const { return key(t) + a.keyValueHeads * width(); }
  int64_t output(int64_t t) const { return (b * a.sequence + t) * a.dim + h * width(); }
  double scale() const { return 1 / std::sqrt(1.0 * width()); }

  double inner(const std::vector<double>& x, int64_t i, const std::vector<double>& y, int64_t j) const {
    double sum = 0;
    for (int64_t c = 0; c < width(); c++) sum += x[i + c] * y[j + c];
    return sum;
  }

  // Softmax of query t over the keys up to it.
  std::vector<double> weights(int64_t t) const {
    std::vector<double> p(t + 1);
    for (int64_t i = 0; i <= t; i++) p[i] = inner(qkv, query(t), qkv, key(i)) * scale();
    const double top = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (double& x : p) total += x = std::exp(x - top);
    for (double& x : p) x /= total;
    return p;
  }
};

template <class Body>
void each_head(const Call& call, const Body& body) {
  const std::vector<double>& qkv = find(call.in, "qkv")->real;
  for (int64_t b = 0; b < call.attrs.batch; b++)
    for (int64_t h = 0; h < call.attrs.heads; h++) body(Head{call.attrs, qkv, b, h});
}

Terms forward_terms(const Call& call) {
  Terms terms(find(call.out, "o")->elements());
  each_head(call, [&](const Head& head) {
    for (int64_t t = 0; t < call.attrs.sequence; t++) {
      const std::vector<double> p = head.weights(t);
      for (int64_t i = 0; i <= t; i++)
        for (int64_t c = 0; c < head.width(); c++) terms.add(head.output(t) + c, p[i] * head.qkv[head.value(i) + c]);
    }
  });
  return terms;
}

Terms backward_terms(const Call& call) {
  const std::vector<double>&dout = find(call.in, "do")->real, &o = find(call.in, "o")->real;
  Terms terms(find(call.out, "dqkv")->elements());
  each_head(call, [&](const Head& head) {
    for (int64_t t = 0; t < call.attrs.sequence; t++) {
      const std::vector<double> p = head.weights(t);
      const double delta = head.inner(dout, head.output(t), o, head.output(t));
      for (int64_t i = 0; i <= t; i++) {
        const double ds = p[i] * (head.inner(dout, head.output(t), head.qkv, head.value(i)) - delta) * head.scale();
        for (int64_t c = 0; c < head.width(); c++) {
          terms.add(head.query(t) + c, ds * head.qkv[head.key(i) + c]);
          terms.add(head.key(i) + c, ds * head.qkv[head.query(t) + c]);
          terms.add(head.value(i) + c, p[i] * dout[head.output(t) + c]);
        }
      }
    }
  });
  return terms;
}

}  // namespace

// Seen failing with scores, and with delta, rounded to bf16.
std::vector<double> attention_bound(const Call& call, const std::vector<double>& want) {
  std::vector<double> bound(want.size());
  for (size_t i = 0; i < want.size(); i++) bound[i] = kUnit * std::abs(want[i]);
  const int64_t width = call.attrs.dim / call.attrs.heads;
  if (width != 64 && width != 128) return bound;
  const Terms terms = call.op == "attention" ? forward_terms(call) : backward_terms(call);
  for (size_t i = 0; i < want.size(); i++) bound[i] += terms.error(i);
  return bound;
}

}  // namespace scmoe::test

#include <dlfcn.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "call.h"
#include "check.h"

namespace scmoe::test {
namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Of the calling thread alone: neighbours on the same machine count less. For what runs on one thread.
double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The shortest of the runs of `body` that fit a quarter of a second (five at least), the first not counted: what it
// takes undisturbed.
template <class Body>
double best_seconds(const Body& body, double (*clock)() = processor_seconds) {
  body();
  double best = 1e30;
  const double start = seconds();
  for (int runs = 0; runs < 5 || seconds() - start < 0.25; runs++) {
    const double before = clock();
    body();
    best = std::min(best, clock() - before);
  }
  return best;
}

// Attention's backward has five products where its forward has two; every other op of a pair has as many.
double flops_of(const Case& c, const std::string& op) {
  return c.flops * (op == "attention_backward" ? 2.5 : op == "router_backward" ? 2.0 : 1.0);
}

bool time_call(const Case& c, const Call& call, const Backend& backend, Stream* stream, int threads) {
  Bound<float> fast(call), slow(call);
  const double before = seconds();
  slow.run(function_of(*reference_backend(), call.op), nullptr);
  const double slow_time = seconds() - before;
  fast.run(function_of(backend, call.op), stream);
  const std::string problem = compare(fast.outputs(), slow.outputs());
  const double time =
      best_seconds([&] { fast.run(function_of(backend, call.op), stream); }, threads > 1 ? seconds : processor_seconds);
  const double work = c.flops > 0 ? flops_of(c, call.op) : fast.bytes();
  std::printf("%-22s %-34s %9.3f ms %8.1f %s %7.1fx  %s\n", call.op.c_str(), c.label.c_str(), time * 1e3,
              work / time * 1e-9, c.flops > 0 ? "GFLOP/s" : "GB/s   ", slow_time / time,
              problem.empty() ? "right" : problem.c_str());
  std::fflush(stdout);
  return problem.empty();
}

// --- sgemm at the shapes of training: NT is a linear layer, NN its dgrad, TN its wgrad.

struct Shape {
  int m, n, k;
};
constexpr Shape kShapes[] = {{512, 512, 512}, {512, 2048, 512}, {512, 512, 2048}, {2048, 512, 512}, {4096, 1024, 512}};

using CblasSgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*,
                            int);

// Our kernels through the linear ops; a library through its C interface.
double best_gflops_of_ours() {
  double best = 0;
  Stream* stream = cpu_backend()->stream_create(1);
  for (const Shape& s : kShapes) {
    Case c{.op = "linear", .label = ""};
    c.attrs.rows = s.m, c.attrs.out = s.n, c.attrs.in = s.k;
    const auto ones = [](int64_t n) { return Value{false, std::vector<double>(n, 1.0), {}}; };
    c.inputs = {{"x", ones(int64_t{s.m} * s.k)}, {"w", ones(int64_t{s.n} * s.k)}, {"b", ones(s.n)}};
    c.outputs = {{"y", int64_t{s.m} * s.n}};
    const Bound<float> bound(forward_call(c));
    const OpFunction linear = function_of(*cpu_backend(), "linear");
    best = std::max(best, 2e-9 * s.m * s.n * s.k / best_seconds([&] { bound.run(linear, stream); }));
  }
  cpu_backend()->stream_destroy(stream);
  return best;
}

double best_gflops_of(CblasSgemm sgemm) {
  double best = 0;
  for (const Shape& s : kShapes) {
    const std::vector<float> a(static_cast<size_t>(s.m) * s.k, 1.0f), b(static_cast<size_t>(s.n) * s.k, 1.0f);
    std::vector<float> c(static_cast<size_t>(s.m) * s.n);
    const double time =
        best_seconds([&] { sgemm(101, 111, 112, s.m, s.n, s.k, 1, a.data(), s.k, b.data(), s.k, 0, c.data(), s.n); });
    best = std::max(best, 2e-9 * s.m * s.n * s.k / time);
  }
  return best;
}

}  // namespace

bool time_ops(const std::string& filter, int num_threads) {
  const Backend& backend = *cpu_backend();
  Stream* stream = backend.stream_create(num_threads);
  bool right = true;
  std::printf("%s, %d threads; the last ratio is to the reference loops\n", backend.name, num_threads);
  for (const Case& c : all_cases()) {
    if (!c.timed || !c.op.starts_with(filter)) continue;
    right &= time_call(c, forward_call(c), backend, stream, num_threads);
    for (const std::string& op : backward_of(c.op))
      right &= time_call(c, backward_call(c, op, false), backend, stream, num_threads);
  }
  backend.stream_destroy(stream);
  return right;
}

void print_pair() {
  const Backend& backend = *cpu_backend();
  Stream* stream = backend.stream_create(1);
  double flops = 0, time = 0;
  const auto add = [&](const Case& c, const Call& call) {
    const Bound<float> bound(call);
    const double best = best_seconds([&] { bound.run(function_of(backend, call.op), stream); });
    std::printf("op\t%s\t%s\t%.3f ms\n", call.op.c_str(), c.label.c_str(), best * 1e3);
    flops += flops_of(c, call.op);
    time += best;
  };
  for (const Case& c : pair_cases()) {
    add(c, forward_call(c));
    for (const std::string& op : backward_of(c.op)) add(c, backward_call(c, op, false));
  }
  backend.stream_destroy(stream);
  const double rate = flops / time * 1e-9;
  std::printf("pair\t%.3f ms\t%.1f GFLOP/s\t%.3f of peak\n", time * 1e3, rate, rate / best_gflops_of_ours());
}

void print_peak() {
  const double ours = best_gflops_of_ours();
  std::printf("%s\t%.1f\n", cpu_backend()->name, ours);
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    std::printf("openblas\tnot installed\n");
    return;
  }
  const auto sgemm = reinterpret_cast<CblasSgemm>(dlsym(library, "cblas_sgemm"));
  if (sgemm) std::printf("openblas\t%.1f\n", best_gflops_of(sgemm));
}

}  // namespace scmoe::test

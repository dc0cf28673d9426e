// Times each op at the shapes of training and compares it with the peak of the machine in the same
// run: the best matrix product for ops that are products, a copy of as many bytes for the others.
#include <dlfcn.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>

#include "check.h"
#include "cpu/stream.h"

namespace scmoe::test {
namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Processor time of the calling thread, which other processes on the machine disturb less than wall
// time. For work on one thread.
double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A team of threads for kernels, and the clock that times its work.
struct Timer {
  explicit Timer(int num_threads) : threads(num_threads), stream(cpu_backend()->stream_create(num_threads)) {}
  ~Timer() { cpu_backend()->stream_destroy(stream); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // The shortest of the runs of `body` that fit into a quarter of a second, at least five, not
  // counting the first. That is the time it takes undisturbed.
  template <class Body>
  double best(const Body& body) const {
    double (*const clock)() = threads > 1 ? seconds : processor_seconds;
    body();
    double shortest = 1e30;
    const double start = seconds();
    for (int runs = 0; runs < 5 || seconds() - start < 0.25; runs++) {
      const double before = clock();
      body();
      shortest = std::min(shortest, clock() - before);
    }
    return shortest;
  }

  int threads;
  Stream* stream;
};

// The backward op of attention has five products and its forward op two; the router's have two and
// one. Other backward ops have as many products as their forward op.
double flops_of(const Case& c, const std::string& op) {
  return c.flops * (op == "attention_backward" ? 2.5 : op == "router_backward" ? 2.0 : 1.0);
}

// The least bytes that must be moved: inputs are read and outputs written, and outputs that are
// added to are also read.
double bytes_of(const Call& call) {
  int64_t elements = 0;
  for (const auto& [name, value] : call.in) elements += value.elements();
  const std::vector<BufferSpec>& names = outputs_of(call.op);
  for (size_t i = 0; i < call.out.size(); i++) {
    const bool accumulated = names[std::min(i, names.size() - 1)].accumulate;
    elements += call.out[i].second.elements() * (accumulated ? 2 : 1);
  }
  if (call.op == "rope") {  // values are in the buffer, but are not touched
    const Attrs& a = call.attrs;
    elements = elements / (a.heads + 2 * a.keyValueHeads) * (a.heads + a.keyValueHeads);
  }
  return 4 * static_cast<double>(elements);
}

// --- sgemm at the shapes of training. NT is a linear layer, NN its dgrad, TN its wgrad.

struct Shape {
  int m, n, k;
};
constexpr Shape kShapes[] = {{512, 512, 512}, {512, 2048, 512}, {512, 512, 2048}, {2048, 512, 512}, {4096, 1024, 512}};

using CblasSgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*,
                            int);

// Our kernels are called through the linear op, a library through its C interface.
double best_gflops_of_ours(const Timer& timer) {
  double best = 0;
  for (const Shape& s : kShapes) {
    Case c{.op = "linear", .label = ""};
    c.attrs.rows = s.m, c.attrs.out = s.n, c.attrs.in = s.k;
    const auto ones = [](int64_t n) { return Value{false, std::vector<double>(n, 1.0), {}}; };
    c.inputs = {{"x", ones(int64_t{s.m} * s.k)}, {"w", ones(int64_t{s.n} * s.k)}};
    c.outputs = {{"y", int64_t{s.m} * s.n}};
    const Bound<float> bound(forward_call(c));
    const OpFunction linear = function_of(*cpu_backend(), "linear");
    best = std::max(best, 2e-9 * s.m * s.n * s.k / timer.best([&] { bound.run(linear, timer.stream); }));
  }
  return best;
}

double best_gflops_of(CblasSgemm sgemm, const Timer& timer) {
  double best = 0;
  for (const Shape& s : kShapes) {
    const std::vector<float> a(static_cast<size_t>(s.m) * s.k, 1.0f), b(static_cast<size_t>(s.n) * s.k, 1.0f);
    std::vector<float> c(static_cast<size_t>(s.m) * s.n);
    const double time =
        timer.best([&] { sgemm(101, 111, 112, s.m, s.n, s.k, 1, a.data(), s.k, b.data(), s.k, 0, c.data(), s.n); });
    best = std::max(best, 2e-9 * s.m * s.n * s.k / time);
  }
  return best;
}

double print_peaks(const Timer& timer) {
  const double ours = best_gflops_of_ours(timer);
  std::printf("peak\tsgemm, %s\t%.2f\tGF/s\n", cpu_backend()->name, ours);
  setenv("OPENBLAS_NUM_THREADS", std::to_string(timer.threads).c_str(), 1);
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  const auto sgemm = library ? reinterpret_cast<CblasSgemm>(dlsym(library, "cblas_sgemm")) : nullptr;
  if (sgemm) std::printf("peak\tsgemm, openblas\t%.2f\tGF/s\n", best_gflops_of(sgemm, timer));
  std::fflush(stdout);
  return ours;
}

// --- A copy of as many bytes as an op touches. Small copies stay in a cache, as the buffers of an
// op do. Large copies of the C library bypass the caches, and our loop never does; the faster of
// the two is the peak.

double seconds_to_copy(size_t elements, const Timer& timer) {
  struct Halves {
    std::vector<float> from, to;
    size_t threads;
  } halves{std::vector<float>(elements, 1), std::vector<float>(elements, 2), static_cast<size_t>(timer.threads)};
  const auto part = [](void* context, int thread) {
    Halves& h = *static_cast<Halves*>(context);
    const size_t t = static_cast<size_t>(thread), n = h.from.size();
    const size_t begin = n * t / h.threads, end = n * (t + 1) / h.threads;
    std::memcpy(h.to.data() + begin, h.from.data() + begin, (end - begin) * sizeof(float));
  };
  const double library = timer.best([&] { stream_run(timer.stream, part, &halves); });

  const OpFunction loop = function_of(*cpu_backend(), "scale_rows");
  constexpr size_t kDim = 256;
  const size_t rows = elements / kDim;
  const std::vector<float> ones(2 * rows, 1);
  const void* in[] = {halves.from.data(), ones.data()};
  void* out[] = {halves.to.data()};
  Attrs attrs{};
  attrs.rows = static_cast<int64_t>(rows), attrs.dim = kDim;
  const int64_t in_elements[] = {static_cast<int64_t>(elements), static_cast<int64_t>(2 * rows)};
  const int64_t out_elements[] = {static_cast<int64_t>(elements)};
  const DType types[] = {DType::kF32, DType::kF32};
  const OpCall call{in, in_elements, types, 2, out, out_elements, types, 1, &attrs};
  if (rows < 16) return library;  // too few to divide among threads
  return std::min(library, timer.best([&] { loop(call, timer.stream); }));
}

class Copies {
 public:
  explicit Copies(const Timer& timer) : timer_(timer) {}

  // Bytes read and written each second by a copy that reads and writes `bytes` together.
  double bytes_per_second(double bytes) {
    const auto elements = static_cast<size_t>(std::max(1.0, bytes / 2 / sizeof(float)));
    const auto [known, unknown] = seconds_.try_emplace(elements, 0.0);
    if (unknown) known->second = seconds_to_copy(elements, timer_);
    return static_cast<double>(2 * elements * sizeof(float)) / known->second;
  }

 private:
  const Timer& timer_;
  std::map<size_t, double> seconds_;  // by elements copied
};

// --- The table.

// Prints a line with the fields "row", op, shape, seconds, unit of the rate, rate, share of the
// peak, wrong values, all values.
bool time_call(const Case& c, const Call& call, const Timer& timer, double peak, Copies& copies) {
  Bound<float> fast(call), slow(call);
  slow.run(function_of(*reference_backend(), call.op), timer.stream);
  const OpFunction run = function_of(*cpu_backend(), call.op);
  fast.run(run, timer.stream);
  int64_t wrong = 0, values = 0;
  const auto got = fast.outputs(), want = slow.outputs();
  for (size_t i = 0; i < want.size(); i++) {
    wrong += difference(want[i].first, got[i].second, want[i].second, kTolerance).count;
    values += want[i].second.elements();
  }
  const double time = timer.best([&] { fast.run(run, timer.stream); });
  const bool product = c.flops > 0;
  const double rate = (product ? flops_of(c, call.op) : bytes_of(call)) / time * 1e-9;
  const double share = rate / (product ? peak : copies.bytes_per_second(bytes_of(call)) * 1e-9);
  std::printf("row\t%s\t%s\t%.9g\t%s\t%.6g\t%.4g\t%ld\t%ld\n", call.op.c_str(), c.label.c_str(), time,
              product ? "GF/s" : "GB/s", rate, share, static_cast<long>(wrong), static_cast<long>(values));
  std::fflush(stdout);
  return wrong == 0;
}

}  // namespace

bool time_ops(const std::string& filter, int num_threads) {
  const Timer timer(num_threads);
  const double peak = print_peaks(timer);
  Copies copies(timer);
  std::printf("peak\tcopy of 64 MiB\t%.2f\tGB/s\n", copies.bytes_per_second(1 << 27) * 1e-9);
  bool right = true;
  for (const Case& c : timed_cases()) {
    if (!c.op.starts_with(filter)) continue;
    right &= time_call(c, forward_call(c), timer, peak, copies);
    for (const std::string& op : backward_of(c.op))
      right &= time_call(c, backward_call(c, op, false), timer, peak, copies);
  }
  return right;
}

void print_peak(int num_threads) {
  print_peaks(Timer(num_threads));
}

}  // namespace scmoe::test

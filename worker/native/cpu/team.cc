#include "cpu/team.h"

#include <stdexcept>
#include <string>

namespace scmoe {
namespace {

// About 10 to 50 microseconds: longer than the gap between two ops, shorter than a scheduler's
// slice.
constexpr int kSpins = 1000;

// Returns the first value seen for which done(value) holds.
template <class Done>
uint32_t await(const std::atomic<uint32_t>& value, Done done) {
  for (int i = 0; i < kSpins; i++) {
    const uint32_t seen = value.load(std::memory_order_acquire);
    if (done(seen)) return seen;
    __builtin_ia32_pause();
  }
  for (;;) {
    const uint32_t seen = value.load(std::memory_order_acquire);
    if (done(seen)) return seen;
    value.wait(seen, std::memory_order_acquire);
  }
}

}  // namespace

Team::Team(int num_threads) {
  if (num_threads < 1) throw std::runtime_error("num_threads is " + std::to_string(num_threads) + ": give 1 or more");
  for (int t = 1; t < num_threads; t++) threads_.emplace_back([this, t] { work(t); });
}

Team::~Team() {
  task_ = nullptr;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

int Team::size() const {
  return static_cast<int>(threads_.size()) + 1;
}

void Team::run(Task task, void* context) {
  if (threads_.empty()) return task(context, 0);
  task_ = task;
  context_ = context;
  pending_.store(static_cast<uint32_t>(threads_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  task(context, 0);
  await(pending_, [](uint32_t left) { return left == 0; });
}

void Team::work(int thread) {
  for (uint32_t seen = 0;;) {
    seen = await(epoch_, [seen](uint32_t epoch) { return epoch != seen; });
    if (!task_) return;
    task_(context_, thread);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

}  // namespace scmoe

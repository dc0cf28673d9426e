#include "run/emulated_link.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace scmoe::run {
namespace {

constexpr int64_t kPiece = int64_t{4} << 20;  // bytes per copy
constexpr int kTries = 16;                    // copies whose speed is measured

class EmulatedLink final : public Collectives {
 public:
  EmulatedLink(const Device& device, std::unique_ptr<Collectives> inner, bool alone, double microseconds)
      : device_(device), inner_(std::move(inner)), alone_(alone), microseconds_(microseconds) {}
  ~EmulatedLink() override {
    device_.release_pinned(on_host_);
    device_.release(on_device_);
  }

  void connect(Communicator& control, std::chrono::milliseconds timeout) override { inner_->connect(control, timeout); }
  void prepare(const Program& program) override { inner_->prepare(program); }
  bool needs_counts(const ProgramOp& op) const override { return inner_->needs_counts(op); }
  void begin() override { inner_->begin(); }
  bool ready(const ProgramOp& op, Stream* stream) override { return inner_->ready(op, stream); }
  void await(const ProgramOp& op) override { inner_->await(op); }
  void issue(const ProgramOp& op, Stream* stream) override {
    if (is_emulated(op)) travel(stream);
    inner_->issue(op, stream);
  }
  void check() override { inner_->check(); }
  void abort() override { inner_->abort(); }

 private:
  bool is_emulated(const ProgramOp& op) const {
    const bool exchange = op.collective == Collective::kDispatch || op.collective == Collective::kCombine;
    return alone_ && exchange && !inner_->needs_counts(op);
  }
  void travel(Stream* stream);
  void measure(Stream* stream);

  const Device& device_;
  const std::unique_ptr<Collectives> inner_;
  const bool alone_;  // in its expert-parallel group
  const double microseconds_;
  void* on_host_ = nullptr;  // pinned
  void* on_device_ = nullptr;
  int64_t bytes_ = 0;  // that one emulated transfer copies
};

void EmulatedLink::travel(Stream* stream) {
  if (on_host_ == nullptr) measure(stream);
  for (int64_t left = bytes_; left > 0; left -= kPiece) {
    device_.copy(on_host_, on_device_, std::min(left, kPiece), stream);
  }
}

// Sets the bytes that take as long as the transfer is to take.
void EmulatedLink::measure(Stream* stream) {
  on_host_ = device_.allocate_pinned(kPiece);
  on_device_ = device_.allocate(kPiece);
  Event *const from = device_.event_create(), *const to = device_.event_create();
  for (int i = 0; i <= kTries; ++i) {  // the first copy warms up
    device_.copy(on_host_, on_device_, kPiece, stream);
    if (i == 0) device_.event_record(from, stream);
  }
  device_.event_record(to, stream);
  device_.event_await(to);
  const double each = std::max(device_.event_microseconds(from, to) / kTries, 1e-3);
  bytes_ = int64_t(double(kPiece) * microseconds_ / each);
  device_.event_destroy(from), device_.event_destroy(to);
}

}  // namespace

MakeCollectives over_emulated_link(MakeCollectives make, double microseconds) {
  return [make = std::move(make), microseconds](const Device& device, const Topology& topology,
                                                const CollectiveOptions& options, Interrupt& interrupt) {
    const bool alone = topology.expert_parallel_size == 1;
    return std::make_unique<EmulatedLink>(device, make(device, topology, options, interrupt), alone, microseconds);
  };
}

}  // namespace scmoe::run

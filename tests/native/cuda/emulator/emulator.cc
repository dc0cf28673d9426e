#include "emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace scmoe::emulator {

Place place;

namespace {

constexpr unsigned kMaxThreads = 1024, kLanes = 32;
constexpr size_t kStackBytes = 256 * 1024;

struct LateCopy {
  void* to;
  const void* from;
  size_t bytes, valid;
};

// A thread of the block: its stack, and the place on it where the thread stopped.
struct Fiber {
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;  // belongs to the sanitizer
  uint3 thread{};
  bool done = false;
  unsigned exchanges = 0;
  std::deque<std::vector<LateCopy>> committed;
  std::vector<LateCopy> copies;
};

struct Warp {
  unsigned lanes = 0, arrived = 0;
  std::vector<unsigned> ready;  // its fibers that can run
  Together what = Together::kSync;
  Words words[2][kLanes];
};

struct Block {
  Fiber fibers[kMaxThreads];
  Warp warps[kMaxThreads / kLanes];
  Fiber host;  // the caller of launch
  unsigned threads = 0, at_barrier = 0, done = 0, running = 0;
  std::vector<unsigned> order;  // of warps; the first that can run does
  const std::function<void()>* body = nullptr;
  char* stacks = nullptr;
  std::unique_ptr<char[]> shared;
};

Block& block() {
  static Block* const instance = new Block;
  return *instance;
}

extern "C" void scmoe_switch_stack(void** save, void* load);
asm(R"(
.text
.globl scmoe_switch_stack
.hidden scmoe_switch_stack
.type scmoe_switch_stack, @function
scmoe_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size scmoe_switch_stack, .-scmoe_switch_stack
)");

#if defined(__SANITIZE_ADDRESS__)
const void* host_stack = nullptr;
size_t host_stack_bytes = 0;
#endif

// Tells the sanitizer that a fiber has arrived on its own stack from another one.
void arrived([[maybe_unused]] Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  const void* from = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &from, &bytes);
  // The stack that is left first
  if (host_stack == nullptr) host_stack = from, host_stack_bytes = bytes;
#endif
}

void change(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  const bool is_host = &to == &block().host;
  const char* stack = is_host ? nullptr : block().stacks + static_cast<size_t>(&to - block().fibers) * kStackBytes;
  __sanitizer_start_switch_fiber(&from.fake_stack, is_host ? host_stack : stack,
                                 is_host ? host_stack_bytes : kStackBytes);
#endif
  scmoe_switch_stack(&from.stack_pointer, to.stack_pointer);
  arrived(from);
}

// Lets all fibers continue, with the warps in a new order.
void release_all() {
  Block& b = block();
  for (unsigned i = 0; i < b.threads; i++) b.warps[i / kLanes].ready.push_back(i);
  for (size_t i = b.order.size(); i > 1; i--) std::swap(b.order[i - 1], b.order[random() % i]);
}

constexpr unsigned kNone = ~0u;

// Draws a random lane of the first warp that has one that can run, and removes it from those that
// can.
unsigned take_ready() {
  Block& b = block();
  for (const unsigned w : b.order) {
    std::vector<unsigned>& ready = b.warps[w].ready;
    if (ready.empty()) continue;
    std::swap(ready[random() % ready.size()], ready.back());
    const unsigned next = ready.back();
    ready.pop_back();
    return next;
  }
  return kNone;
}

// Switches from the running fiber to one that can continue, or to the host if there is none.
void yield() {
  Block& b = block();
  Fiber& from = b.fibers[b.running];
  unsigned next = take_ready();
  if (next == kNone && b.at_barrier == b.threads) {
    b.at_barrier = 0;
    release_all();
    next = take_ready();
  }
  if (next == kNone) {
    if (b.done == b.threads) return change(from, b.host);
    fail(b.at_barrier > 0 ? "threads wait at __syncthreads for others that will never come"
                          : "lanes of a warp wait for others that will never come");
  }
  if (next == b.running && !from.done) return;
  b.running = next;
  place.thread = b.fibers[next].thread;
  change(from, b.fibers[next]);
}

// A fiber runs one block after another and never ends, so that the sanitizer's knowledge of its
// stack stays valid.
void enter() {
  Block& b = block();
  Fiber& fiber = b.fibers[b.running];
  arrived(fiber);
  while (true) {
    (*b.body)();
    fiber.done = true;
    b.done++;
    if (!fiber.copies.empty()) fail("a thread ends before copies that it began");
    yield();
  }
}

void prepare(unsigned index) {
  Fiber& fiber = block().fibers[index];
  if (!fiber.stack_pointer) {
    char* top = block().stacks + (index + 1) * kStackBytes;
    void** stack = reinterpret_cast<void**>(top) - 1;
    *stack-- = nullptr;
    *stack = reinterpret_cast<void*>(&enter);
    stack -= 6;  // registers
    fiber.stack_pointer = stack;
  }
  fiber.done = false;
  fiber.exchanges = 0;
  fiber.committed.clear(), fiber.copies.clear();
  const dim3& n = place.threads;
  fiber.thread = {index % n.x, index / n.x % n.y, index / n.x / n.y};
}

void run_block() {
  Block& b = block();
  b.at_barrier = b.done = 0;
  for (unsigned i = 0; i < b.threads; i++) prepare(i);
  for (unsigned w = 0; w * kLanes < b.threads; w++) {
    b.warps[w].lanes = std::min(kLanes, b.threads - w * kLanes);
    b.warps[w].arrived = 0;
  }
  b.order.resize((b.threads + kLanes - 1) / kLanes);
  std::iota(b.order.begin(), b.order.end(), 0u);
  release_all();
  b.running = take_ready();
  place.thread = b.fibers[b.running].thread;
  change(b.host, b.fibers[b.running]);
}

void land(std::vector<LateCopy>& copies) {
  for (const LateCopy& copy : copies) {
    std::memcpy(copy.to, copy.from, copy.valid);
    std::memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
  }
  copies.clear();
}

}  // namespace

void fail(const char* what) {
  std::fprintf(stderr, "emulator: %s (thread %u,%u of block %u,%u,%u)\n", what, place.thread.x, place.thread.y,
               place.block.x, place.block.y, place.block.z);
  std::abort();
}

uint64_t random() {
  static uint64_t state = [] {
    const char* seed = std::getenv("SCMOE_EMULATOR_SEED");
    return 0x9e3779b97f4a7c15u * (1 + (seed ? std::strtoull(seed, nullptr, 10) : 0));
  }();
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state * 0x2545f4914f6cdd1du >> 24;
}

void launch(dim3 blocks, dim3 threads, size_t shared_bytes, const std::function<void()>& body) {
  Block& b = block();
  b.threads = threads.x * threads.y * threads.z;
  const uint64_t count = uint64_t{blocks.x} * blocks.y * blocks.z;
  if (b.threads == 0 || b.threads > kMaxThreads || count == 0) fail("a launch of no threads or of too many");
  if (blocks.y > 65535 || blocks.z > 65535) fail("a launch of more blocks in y or z than there can be");
  if (!b.stacks) {
    void* memory = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for stacks");
    b.stacks = static_cast<char*>(memory);
  }
  b.body = &body;
  b.shared.reset(shared_bytes > 0 ? new char[shared_bytes] : nullptr);
  place.blocks = blocks, place.threads = threads;
  std::vector<uint64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (uint64_t i = count; i > 1; i--) std::swap(order[i - 1], order[random() % i]);
  for (const uint64_t i : order) {
    place.block = {static_cast<unsigned>(i % blocks.x), static_cast<unsigned>(i / blocks.x % blocks.y),
                   static_cast<unsigned>(i / blocks.x / blocks.y)};
    if (shared_bytes > 0) std::memset(b.shared.get(), 0xff, shared_bytes);
    run_block();
  }
}

void* shared_memory() {
  return block().shared.get();
}

unsigned lane() {
  return block().running % kLanes;
}

namespace {

// Reports at the end how often the barrier was left out. A barrier that is never reached cannot be
// found.
struct LeftOut {
  LeftOut() {
    const char* const text = std::getenv("SCMOE_EMULATOR_LEAVE_OUT");
    if (text != nullptr) place = text;
  }
  ~LeftOut() {
    if (!place.empty()) std::fprintf(stderr, "emulator: left out %s %ld times\n", place.c_str(), times);
  }
  bool holds(const std::source_location& where) {
    if (place.empty()) return false;
    const std::string_view path = where.file_name();
    const bool is_here = std::string(path.substr(path.rfind('/') + 1)) + ":" + std::to_string(where.line()) == place;
    times += is_here;
    return is_here;
  }

  std::string place;
  long times = 0;
};

}  // namespace

void block_barrier(const std::source_location& where) {
  static LeftOut left_out;
  if (left_out.holds(where)) return;
  block().at_barrier++;
  yield();
}

const Words* exchange(Together what, const void* value, size_t bytes) {
  Block& b = block();
  const unsigned self = b.running;
  Warp& warp = b.warps[self / kLanes];
  auto& words = warp.words[b.fibers[self].exchanges++ % 2];
  if (bytes > 0) std::memcpy(words[self % kLanes], value, bytes);
  if (warp.arrived > 0 && warp.what != what) fail("lanes of a warp do different things at once");
  warp.what = what;
  if (++warp.arrived < warp.lanes) {
    yield();
  } else {
    warp.arrived = 0;
    const unsigned first = self / kLanes * kLanes;
    for (unsigned i = first; i < first + warp.lanes; i++) warp.ready.push_back(i);
    yield();
  }
  return words;
}

// A copy may overwrite its target at once, or not before the wait. One of the two is drawn at
// random.
void copy_async(void* to, const void* from, size_t bytes, size_t valid_bytes) {
  std::vector<LateCopy> copy{{to, from, bytes, valid_bytes}};
  if (random() % 2 == 0) return land(copy);
  block().fibers[block().running].copies.push_back(copy.front());
}

void copy_async_commit() {
  Fiber& fiber = block().fibers[block().running];
  fiber.committed.push_back(std::move(fiber.copies));
  fiber.copies.clear();
}

void copy_async_wait(int groups_left) {
  auto& committed = block().fibers[block().running].committed;
  for (; committed.size() > static_cast<size_t>(groups_left); committed.pop_front()) land(committed.front());
}

}  // namespace scmoe::emulator

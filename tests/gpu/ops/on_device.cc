#include "on_device.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace scmoe::test {
namespace {

// Alignment of buffers on the device, and the least distance between two.
constexpr int64_t kAlignment = 256;
// The bytes between buffers. As a float they are not a number, so that reading them is noticed too.
constexpr char kUntouched = char(0xff);
constexpr size_t kMostOps = 96;

const Device* used = nullptr;
Backend backend;
OpEntry entries[kMostOps];

int64_t bytes_of(int64_t elements, DType type) {
  return elements * (type == DType::kBF16 ? 2 : 4);
}

// All buffers of one call in one piece of memory. A buffer that is both input and output appears
// once.
class Image {
 public:
  explicit Image(const OpCall& call) {
    for (int i = 0; i < call.num_in; ++i) place(call.in[i], bytes_of(call.in_elements[i], call.in_types[i]), false);
    for (int i = 0; i < call.num_out; ++i) place(call.out[i], bytes_of(call.out_elements[i], call.out_types[i]), true);
    before_.assign(size_t(size_), kUntouched);
    for (const auto& [host, piece] : pieces_) std::memcpy(before_.data() + piece.offset, host, size_t(piece.bytes));
  }

  const std::vector<char>& bytes() const { return before_; }
  int64_t offset_of(const void* host) const { return pieces_.at(host).offset; }

  // Copies the outputs to the buffers of the call. Returns the place of the first byte outside of
  // the outputs that has changed, or -1.
  int64_t take(std::vector<char> after) const {
    for (const auto& [host, piece] : pieces_) {
      if (!piece.written) continue;
      std::memcpy(const_cast<void*>(host), after.data() + piece.offset, size_t(piece.bytes));
      std::memcpy(after.data() + piece.offset, before_.data() + piece.offset, size_t(piece.bytes));
    }
    const auto [wrong, end] = std::mismatch(after.begin(), after.end(), before_.begin());
    return wrong == after.end() ? -1 : wrong - after.begin();
  }

  // Names a place that belongs to no output, relative to the buffer before it.
  std::string name_of(int64_t place) const {
    std::string name = "before the first buffer";
    int64_t nearest = -1;
    for (const auto& [host, piece] : pieces_) {
      if (piece.offset > place || piece.offset <= nearest) continue;
      nearest = piece.offset;
      name = "byte " + std::to_string(place - piece.offset) + " of a buffer of " + std::to_string(piece.bytes);
    }
    return name;
  }

 private:
  struct Piece {
    int64_t offset = 0, bytes = 0;
    bool written = false;
  };

  void place(const void* host, int64_t bytes, bool written) {
    const auto [found, is_new] = pieces_.try_emplace(host);
    found->second.written |= written;
    if (!is_new) return;
    found->second.offset = size_;
    found->second.bytes = bytes;
    size_ += (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
  }

  std::map<const void*, Piece> pieces_;
  int64_t size_ = kAlignment;
  std::vector<char> before_;
};

char* memory_of(size_t bytes) {
  static void* memory = nullptr;
  static size_t size = 0;
  if (size < bytes) {
    used->release(std::exchange(memory, nullptr));
    memory = used->allocate(int64_t(bytes));
    size = bytes;
  }
  return static_cast<char*>(memory);
}

void run_on_device(const OpEntry& op, const OpCall& call, Stream* stream) {
  static Event* const done = used->event_create();
  const Image image(call);
  const size_t size = image.bytes().size();
  char* const memory = memory_of(size);
  used->copy_now(memory, image.bytes().data(), int64_t(size));
  std::vector<const void*> in;
  std::vector<void*> out;
  for (int i = 0; i < call.num_in; ++i) in.push_back(memory + image.offset_of(call.in[i]));
  for (int i = 0; i < call.num_out; ++i) out.push_back(memory + image.offset_of(call.out[i]));
  OpCall there = call;
  there.in = in.data(), there.out = out.data();
  op.run(there, stream);
  used->event_record(done, stream);
  used->event_await(done);
  std::vector<char> after(size);
  used->copy_now(after.data(), memory, int64_t(size));
  if (const int64_t wrong = image.take(std::move(after)); wrong >= 0) {
    throw std::runtime_error(std::string(op.name) + " wrote outside of its outputs: " + image.name_of(wrong));
  }
}

template <size_t kIndex>
void run(const OpCall& call, Stream* stream) {
  run_on_device(used->backend->ops[kIndex], call, stream);
}

template <size_t... kIndex>
void fill(std::index_sequence<kIndex...>) {
  const auto entry = [](size_t index, OpFunction function) {
    if (int(index) < used->backend->num_ops) entries[index] = {used->backend->ops[index].name, function};
  };
  (entry(kIndex, run<kIndex>), ...);
}

}  // namespace

const Backend& on_device(const Device& device) {
  if (size_t(device.backend->num_ops) > kMostOps)
    throw std::runtime_error("the backend has more ops than kMostOps; raise it");
  used = &device;
  fill(std::make_index_sequence<kMostOps>());
  backend = *device.backend;
  backend.ops = entries;
  return backend;
}

}  // namespace scmoe::test

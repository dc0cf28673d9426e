#include "device/nccl/counts.h"

namespace scmoe {

HostCounts::~HostCounts() {
  for (auto& [place, copy] : copies_) {
    device_.release_pinned(copy.values);
    device_.event_destroy(copy.copied);
  }
}

void HostCounts::begin() {
  for (auto& [place, copy] : copies_) copy.asked = false;
}

HostCounts::Copy& HostCounts::copy_of(const void* place, int64_t elements) {
  Copy& copy = copies_[place];
  if (copy.copied == nullptr) copy.copied = device_.event_create();
  if (copy.elements < elements) {
    device_.release_pinned(copy.values);
    copy.values = static_cast<int32_t*>(device_.allocate_pinned(elements * int64_t(sizeof(int32_t))));
    copy.elements = elements;
  }
  return copy;
}

void HostCounts::ask(Copy& copy, const void* place, Stream* stream) {
  device_.copy(copy.values, place, copy.elements * int64_t(sizeof(int32_t)), stream);
  device_.event_record(copy.copied, stream);
  copy.asked = true;
}

void HostCounts::ask(const void* place, int64_t elements, Stream* stream) {
  ask(copy_of(place, elements), place, stream);
}

bool HostCounts::ready(const void* place, int64_t elements, Stream* stream) {
  Copy& copy = copy_of(place, elements);
  if (!copy.asked) ask(copy, place, stream);
  return device_.event_done(copy.copied);
}

void HostCounts::await(const void* place) {
  device_.event_await(copies_.at(place).copied);
}

}  // namespace scmoe

#include "mesh/flow.h"

namespace scmoe {

bool Flow::settle() {
  const size_t before = next_;
  while (open() && segments_[next_].iov_len == 0) ++next_;
  return next_ != before;
}

void Flow::consume(size_t bytes) {
  while (bytes > 0) {
    iovec& segment = segments_[next_];
    const size_t part = std::min(bytes, segment.iov_len);
    segment.iov_base = static_cast<char*>(segment.iov_base) + part;
    segment.iov_len -= part;
    bytes -= part;
    if (segment.iov_len == 0) ++next_;
  }
  settle();
}

Flow::Batch Flow::next_batch(iovec* vectors, size_t most_vectors, size_t most_bytes) const {
  Batch batch;
  const size_t last = end();
  for (size_t i = next_; i < last && batch.vectors < most_vectors && batch.bytes < most_bytes; ++i) {
    iovec segment = segments_[i];
    segment.iov_len = std::min(segment.iov_len, most_bytes - batch.bytes);
    batch.bytes += segment.iov_len;
    if (segment.iov_len > 0) vectors[batch.vectors++] = segment;
  }
  return batch;
}

size_t Flow::certain_bytes(size_t most) const {
  const size_t last = std::min(end(), certain_);
  size_t bytes = 0;
  for (size_t i = next_; i < last && bytes < most; ++i) bytes += segments_[i].iov_len;
  return bytes;
}

}  // namespace scmoe

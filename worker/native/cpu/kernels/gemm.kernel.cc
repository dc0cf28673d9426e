#include "cpu/gemm.h"

#include "cpu/routing.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

constexpr int kTileCols = kTileVecs * kLanes;
// Rows of A that are packed at a time; they stay in the L2 cache.
constexpr int64_t kBlockRows = 16 * kTileRows;
// Columns of B that gemm_team packs at a time.
constexpr int64_t kBlockCols = 32 * kTileCols;

// --- Packing.

// Interleaves the lanes of a and b: half 0 gives a0 b0 a1 b1 …, half 1 the rest.
template <int half>
SCMOE_INLINE Vec interleave(Vec a, Vec b) {
  VecInt mask;
  for (int i = 0; i < kLanes; i++) mask[i] = half * kLanes / 2 + i / 2 + (i % 2) * kLanes;
  return __builtin_shuffle(a, b, mask);
}

// out[c * out_stride + r] = x[r * stride + c] for kLanes columns c and `rows` <= kLanes rows r, by
// log2(kLanes) rounds that interleave row i with row i + kLanes / 2. Whole vectors are stored in
// order of c. With out_stride < kLanes, each of them overwrites the elements that the one before
// wrote beyond its end.
SCMOE_INLINE void transpose_block(const float* x, int64_t stride, int rows, float* out, int64_t out_stride) {
  Vec a[kLanes], b[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) a[i] = load(x + (i < rows ? i : 0) * stride);
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; i++) {
      b[2 * i] = interleave<0>(a[i], a[i + kLanes / 2]);
      b[2 * i + 1] = interleave<1>(a[i], a[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) a[i] = b[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) store(out + i * out_stride, a[i]);
}

// Panels are [lines / width][depth][width], of which the last is padded. Here a line is a row of
// the memory of x.
template <int width>
void pack_rows(const float* x, int64_t stride, int64_t lines, int64_t depth, float* out) {
  static_assert(width <= kLanes || width % kLanes == 0);
  for (; lines > 0; lines -= width, x += width * stride, out += width * depth) {
    const int used = static_cast<int>(min(lines, width));
    int64_t p = 0;
    for (; p + kLanes <= depth; p += kLanes)
      for (int line = 0; line < used; line += kLanes)
        transpose_block(x + line * stride + p, stride, used - line, out + p * width + line, width);
    for (; p < depth; p++)
      for (int line = 0; line < width; line++) out[p * width + line] = line < used ? x[line * stride + p] : 0.0f;
  }
}

// The same if a line is a column of memory. A few panels are filled at a time, so that memory is
// read in order.
template <int width>
void pack_columns(const float* x, int64_t stride, int64_t lines, int64_t depth, float* out) {
  constexpr int64_t kPanels = 4;
  for (int64_t first = 0; first < lines; first += kPanels * width) {
    const int64_t whole = min(kPanels, (lines - first) / width), used = lines - first - whole * width;
    for (int64_t p = 0; p < depth; p++) {
      const float* from = x + p * stride + first;
      float* to = out + first * depth + p * width;
      for (int64_t i = 0; i < whole; i++, from += width, to += width * depth)
        for (int j = 0; j < width; j++) to[j] = from[j];
      for (int j = 0; whole < kPanels && used > 0 && j < width; j++) to[j] = j < used ? from[j] : 0.0f;
    }
  }
}

// Columns of B or rows of A are the lines of a panel. There are kLanes unused elements behind
// `out`.
template <int width>
void pack_panels(const float* x, int64_t stride, bool columns, int64_t lines, int64_t depth, float* out) {
  (columns ? pack_columns<width> : pack_rows<width>)(x, stride, lines, depth, out);
}

// --- The kernel: one tile of C in registers. Nearly all time is spent in this loop. The sums start
// from zero and are added to C at the end: a float that carries a long sum through the loop would
// round every term to the size of that sum.

template <int rows>
SCMOE_INLINE void tile(int64_t depth, const float* a, const float* b, float* c, int64_t ldc, bool accumulate) {
  Vec sum[rows][kTileVecs] = {};
  for (int64_t p = 0; p < depth; p++, a += kTileRows, b += kTileCols) {
    Vec row[kTileVecs];
#pragma GCC unroll 4
    for (int j = 0; j < kTileVecs; j++) row[j] = load(b + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
      const Vec x = splat(a[i]);
#pragma GCC unroll 4
      for (int j = 0; j < kTileVecs; j++) sum[i][j] += x * row[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < kTileVecs; j++) {
      float* to = c + i * ldc + j * kLanes;
      store(to, accumulate ? load(to) + sum[i][j] : sum[i][j]);
    }
}

// Tiles with fewer rows for the end of a matrix: 4 or 8 rows instead of 14.
constexpr int kQuarterTile = (kTileRows + 2) / 4, kHalfTile = 2 * kQuarterTile;

int64_t rows_computed(int64_t rows) {
  return rows <= kQuarterTile ? kQuarterTile : rows <= kHalfTile ? kHalfTile : kTileRows;
}

void tile_of_rows(int64_t rows, int64_t depth, const float* a, const float* b, float* c, int64_t ldc, bool accumulate) {
  if (rows <= kQuarterTile) return tile<kQuarterTile>(depth, a, b, c, ldc, accumulate);
  if (rows <= kHalfTile) return tile<kHalfTile>(depth, a, b, c, ldc, accumulate);
  tile<kTileRows>(depth, a, b, c, ldc, accumulate);
}

// Writes the values to which the sums of a tile's elements are added: C, bias and residual.
void start_tile(const Gemm& g, int64_t row, int64_t col, int64_t rows, int64_t cols, float* c, int64_t ldc) {
  for (int64_t i = 0; i < rows; i++) {
    const int64_t at = (row + i) * g.ldc + col;
    for (int64_t j = 0; j < cols; j++) {
      float x = g.bias ? g.bias[col + j] : 0.0f;
      if (g.residual) x += g.residual[at + j];
      if (g.accumulate) x += g.c[at + j];
      c[i * ldc + j] = x;
    }
  }
}

void tile_of(const Gemm& g, int64_t row, int64_t col, int64_t depth, bool first, const float* a, const float* b) {
  const int64_t rows = min(g.m - row, kTileRows), cols = min(g.n - col, kTileCols);
  const bool starts = first && (g.bias || g.residual);
  const bool accumulate = !first || starts || g.accumulate;
  float* c = g.c + row * g.ldc + col;
  if (rows == rows_computed(rows) && cols == kTileCols) {
    if (starts) start_tile(g, row, col, rows, cols, c, g.ldc);
    for (int i = kTileRows; i < 2 * kTileRows; i++)  // the next tile of C
      for (int j = 0; j < kTileVecs; j++) __builtin_prefetch(c + i * g.ldc + j * kLanes, 1);
    return tile_of_rows(rows, depth, a, b, c, g.ldc, accumulate);
  }
  float edge[kTileRows * kTileCols] __attribute__((aligned(64))) = {};
  if (starts) {
    start_tile(g, row, col, rows, cols, edge, kTileCols);
  } else if (accumulate) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < cols; j++) edge[i * kTileCols + j] = c[i * g.ldc + j];
  }
  tile_of_rows(rows, depth, a, b, edge, kTileCols, accumulate);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) c[i * g.ldc + j] = edge[i * kTileCols + j];
}

const float* at(const Matrix& x, int64_t row, int64_t col) {
  return x.data + (x.transposed ? col * x.stride + row : row * x.stride + col);
}

// Computes rows `begin` to `end - 1` of the product's rows. B is packed one block of columns and
// depth at a time, so it stays in the cache and scratch does not grow with the product.
void gemm_part(const Gemm& g, int64_t begin, int64_t end, Stream* stream, int thread) {
  const int64_t size = packed_elements(min(g.n, kBlockCols), min(g.k, kBlockDepth));
  float* space = scratch(stream, thread, size + gemm_space());
  for (int64_t col = 0; col < g.n; col += kBlockCols) {
    for (int64_t p = 0; p < g.k; p += kBlockDepth) {
      Gemm part = g;
      part.n = min(g.n - col, kBlockCols);
      part.k = min(g.k - p, kBlockDepth);
      part.a.data = at(g.a, 0, p);
      part.c = g.c + col;
      part.accumulate = g.accumulate || p > 0;
      part.bias = g.bias && p == 0 ? g.bias + col : nullptr;
      part.residual = g.residual && p == 0 ? g.residual + col : nullptr;
      const Packed b = pack({at(g.b, p, col), g.b.stride, g.b.transposed}, part.n, part.k, space);
      const auto multiply = [&](int64_t first, int64_t count) {
        Gemm piece = part;
        piece.m = count;
        piece.a.data = at(part.a, first, 0);
        piece.c = part.c + first * g.ldc;
        if (part.residual) piece.residual = part.residual + first * g.ldc;
        gemm_packed(piece, b, space + size);
      };
      if (g.rows) {
        each_piece(*g.rows, begin, end, multiply);
      } else {
        multiply(begin, end - begin);
      }
    }
  }
}

}  // namespace

int64_t packed_elements(int64_t n, int64_t k) {
  return round_up(n, kTileCols) * k + 64;
}

// [k / kBlockDepth][n / kTileCols][<= kBlockDepth][kTileCols]
Packed pack(const Matrix& b, int64_t n, int64_t k, float* out) {
  for (int64_t p = 0; p < k; p += kBlockDepth)
    pack_panels<kTileCols>(at(b, p, 0), b.stride, !b.transposed, n, min(k - p, kBlockDepth),
                           out + p * round_up(n, kTileCols));
  return {out, n, k};
}

int64_t gemm_space() {
  return kBlockRows * kBlockDepth + 64;
}

void gemm_packed(const Gemm& g, const Packed& b, float* space) {
  const int64_t b_cols = round_up(b.n, kTileCols);
  for (int64_t p = 0; p < g.k; p += kBlockDepth) {
    const int64_t depth = min(g.k - p, kBlockDepth), b_depth = min(b.k - p, kBlockDepth);
    for (int64_t block = 0; block < g.m; block += kBlockRows) {
      const int64_t rows = min(g.m - block, kBlockRows);
      pack_panels<kTileRows>(at(g.a, block, p), g.a.stride, g.a.transposed, rows, depth, space);
      for (int64_t col = 0; col < g.n; col += kTileCols)
        for (int64_t i = 0; i < rows; i += kTileRows)
          tile_of(g, block + i, col, depth, p == 0, space + i * depth, b.data + p * b_cols + col * b_depth);
    }
  }
}

void gemm_team(const Gemm& g, Stream* stream) {
  const int64_t m = g.rows ? g.rows->rows : g.m;
  const bool by_rows = m >= g.n || m >= 4 * kTileRows * stream_threads(stream);
  if (by_rows) {
    return parallel_for(stream, m, kTileRows,
                        [&](int64_t begin, int64_t end, int thread) { gemm_part(g, begin, end, stream, thread); });
  }
  parallel_for(stream, g.n, kTileCols, [&](int64_t begin, int64_t end, int thread) {
    Gemm part = g;
    part.n = end - begin;
    part.b.data = at(g.b, 0, begin);
    part.c = g.c + begin;
    if (g.bias) part.bias = g.bias + begin;
    if (g.residual) part.residual = g.residual + begin;
    gemm_part(part, 0, m, stream, thread);
  });
}

}  // namespace scmoe::SCMOE_ISA

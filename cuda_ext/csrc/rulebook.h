// Which rows meet under which kernel offset: see equilidar/ops/rulebook.py.
#pragma once

#include "portable.h"
#include "workspace.h"
#if !defined(__CUDACC__)
#include <memory>
#include <vector>

#include "sort.h"
#endif

namespace equilidar {

// Numbers of cells along z, y and x.
struct Cells {
  int64_t z, y, x;

  EQL_HD int64_t volume() const { return z * y * x; }
};

// Keys sort as the rows [batch, z, y, x] do.
EQL_HD int64_t cell_key(int64_t batch, int64_t z, int64_t y, int64_t x, const Cells& shape) {
  return ((batch * shape.z + z) * shape.y + y) * shape.x + x;
}

EQL_HD int64_t cell_key(const int32_t* row, const Cells& shape) { return cell_key(row[0], row[1], row[2], row[3], shape); }

EQL_HD void cell_of_key(int64_t key, const Cells& shape, int32_t* row) {
  row[3] = static_cast<int32_t>(key % shape.x);
  key /= shape.x;
  row[2] = static_cast<int32_t>(key % shape.y);
  key /= shape.y;
  row[1] = static_cast<int32_t>(key % shape.z);
  row[0] = static_cast<int32_t>(key / shape.z);
}

// A shape with a margin, so that neighbours across the border are not taken for cells of the next line.
EQL_HD Cells with_margin(const Cells& shape, const Cells& kernel) {
  return {shape.z + kernel.z / 2, shape.y + kernel.y / 2, shape.x + kernel.x / 2};
}

// First of the sorted keys [first, last) that is not below `key`; `last` if none.
EQL_HD int64_t first_at_least(const int64_t* keys, int64_t first, int64_t last, int64_t key) {
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    if (keys[middle] < key) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return first;
}

struct Geometry {
  Cells in_shape, out_shape, kernel, stride, padding;

  // At most this many output cells read an input cell, along each axis.
  EQL_HD Cells taps() const {
    return {(kernel.z + stride.z - 1) / stride.z, (kernel.y + stride.y - 1) / stride.y, (kernel.x + stride.x - 1) / stride.x};
  }
};

// Output number `tap` that reads the input cell `index` along an axis, and under which offset; false if there is none.
EQL_HD bool read_along(int64_t index, int64_t tap, int64_t kernel, int64_t stride, int64_t padding, int64_t size,
                       int64_t& out, int64_t& offset) {
  const int64_t shifted = index + padding;
  out = shifted / stride - tap;
  offset = shifted - out * stride;
  return offset < kernel && out >= 0 && out < size;
}

#if !defined(__CUDACC__)

// Keys in ascending order, one more that no cell has, and the rows that they are of: null where coords come sorted.
struct SortedCells {
  std::unique_ptr<int64_t[]> keys;
  std::unique_ptr<int32_t[]> order;
  int64_t num;
};

SortedCells sort_cells(const int32_t* coords, int64_t num, const Cells& shape);

// A submanifold convolution's pairs, found twice: to count them, and to list them where the counts say.
class SubmanifoldPairs {
 public:
  SubmanifoldPairs(const int32_t* coords, int64_t num, const Cells& shape, const Cells& kernel);
  // Pairs per offset, none under the center.
  std::vector<int64_t> counts;
  void list(int32_t* in_rows, int32_t* out_rows) const;

 private:
  struct Line {
    int64_t move, first_dx, size, offset;  // of the first cell of the line
  };
  template <typename Emit>
  void walk(const Line& line, int64_t begin, int64_t end, const Emit& emit) const;

  SortedCells cells_;
  std::vector<Line> lines_;
  int64_t chunks_;
  std::vector<int64_t> starts_;  // (num_offsets, chunks), relative to the offset's first pair
};

// A strided convolution's output cells and pairs, likewise.
class StridedPairs {
 public:
  StridedPairs(const int32_t* coords, int64_t num, const Geometry& geometry);
  std::vector<int64_t> counts;
  int64_t num_out;
  void list(int32_t* in_rows, int32_t* out_rows, int32_t* out_coords) const;

 private:
  // Cells of one (batch, z, y), in sorted order.
  struct Line {
    int64_t batch, z, y, begin, end;
  };
  struct Bits;
  // Call visit(cell, out x, offset) for all pairs of an output line.
  template <typename Visit>
  void for_each_reader(int64_t group, const Visit& visit) const;

  SortedCells cells_;
  // The last x of an output cell that reads a cell, and under which offset along x it does.
  std::unique_ptr<int32_t[]> last_x_, first_dx_;
  Geometry geometry_;
  std::vector<Line> lines_;
  // (output line, input line << kOffsetBits | offset of the line), sorted; and where each output line begins.
  static constexpr int kOffsetBits = 20;
  std::unique_ptr<Record[]> readers_;
  std::vector<int64_t> groups_;
  int64_t chunks_;
  std::vector<int64_t> starts_;      // (chunks, num_offsets): where the pairs of each chunk begin
  std::vector<int64_t> out_starts_;  // (chunks + 1): its first output row
};

#endif

// On CUDA, too, in two steps: the first ends with the one synchronisation that tells the sizes.
struct PairsOnDevice {
  int64_t num_pairs, num_out;
  const int32_t* table;      // submanifold: (num_offsets, num), the input row of each output row, -1 for none
  const int32_t* positions;  // submanifold: of the table's entries among the pairs
  const int64_t* pair_keys;  // strided: offset * capacity + output row, sorted
  const int32_t* pair_taps;  // strided: input row * taps + tap
  const int64_t* out_keys;   // strided: of the output rows
  int64_t capacity;
};

// `counts`, one per offset, is of the host.
PairsOnDevice submanifold_pairs_cuda(const int32_t* coords, int64_t num, const Cells& shape, const Cells& kernel,
                                     int64_t* counts, Workspace& workspace, Stream stream);
void list_submanifold_pairs_cuda(const PairsOnDevice& pairs, int64_t num_offsets, int32_t* in_rows, int32_t* out_rows,
                                 Stream stream);
PairsOnDevice strided_pairs_cuda(const int32_t* coords, int64_t num, const Geometry& geometry, int64_t* counts,
                                 Workspace& workspace, Stream stream);
void list_strided_pairs_cuda(const PairsOnDevice& pairs, const Geometry& geometry, int32_t* in_rows, int32_t* out_rows,
                             int32_t* out_coords, Stream stream);

}  // namespace equilidar

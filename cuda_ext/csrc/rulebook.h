// Which rows meet under which kernel offset: see equilidar/ops/rulebook.py.
#pragma once

#include "portable.h"
#if !defined(__CUDACC__)
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

// Write the neighbours of one cell along x in the line that `base` is in, the cell's key moved in z and y: entries
// [0, size) of column `row` of `table`, whose rows are `num` long. `position` is at the first key >= base - size / 2.
EQL_HD void write_line(const int64_t* keys, const int32_t* order, int64_t num, int64_t base, int64_t size,
                       int64_t position, int32_t* table, int64_t row) {
  for (int64_t tap = 0; tap < size; ++tap) {
    const bool found = position < num && keys[position] == base - size / 2 + tap;
    table[tap * num + row] = !found ? -1 : order == nullptr ? static_cast<int32_t>(position) : order[position];
    position += found;
  }
}

struct Geometry {
  Cells in_shape, out_shape, kernel, stride, padding;

  // At most this many output cells read an input cell, along each axis.
  EQL_HD Cells taps() const {
    return {(kernel.z + stride.z - 1) / stride.z, (kernel.y + stride.y - 1) / stride.y, (kernel.x + stride.x - 1) / stride.x};
  }
};

// One output cell that reads an input cell, and under which offset.
struct Reader {
  int64_t key;
  int32_t offset;
  bool exists;
};

EQL_HD bool read_along(int64_t index, int64_t tap, int64_t kernel, int64_t stride, int64_t padding, int64_t size,
                       int64_t& out, int64_t& offset) {
  const int64_t shifted = index + padding;
  out = shifted / stride - tap;
  offset = shifted - out * stride;
  return offset < kernel && out >= 0 && out < size;
}

// The reader number `tap`, of taps().volume(), of a cell [batch, z, y, x].
EQL_HD Reader reader_of(const int32_t* row, int64_t tap, const Geometry& g) {
  const Cells taps = g.taps();
  int64_t z, y, x, dz, dy, dx;
  const bool in_z = read_along(row[1], tap / (taps.y * taps.x), g.kernel.z, g.stride.z, g.padding.z, g.out_shape.z, z, dz);
  const bool in_y = read_along(row[2], tap / taps.x % taps.y, g.kernel.y, g.stride.y, g.padding.y, g.out_shape.y, y, dy);
  const bool in_x = read_along(row[3], tap % taps.x, g.kernel.x, g.stride.x, g.padding.x, g.out_shape.x, x, dx);
  return {cell_key(row[0], z, y, x, g.out_shape), static_cast<int32_t>((dz * g.kernel.y + dy) * g.kernel.x + dx),
          in_z && in_y && in_x};
}

// Rows of a table in which the pairs of a block are counted and listed together.
constexpr int64_t kPairBlock = 2048;

EQL_HD int64_t pair_blocks(int64_t num_out) { return (num_out + kPairBlock - 1) / kPairBlock; }

#if !defined(__CUDACC__)

// table (kernel.volume(), num): the input row that each row reads under each offset, -1 for none.
void submanifold_table_cpu(const int32_t* coords, int64_t num, Cells shape, Cells kernel, int32_t* table);

// starts (num_offsets * pair_blocks(num_out) + 1): where the pairs of each offset and block begin, without the center's.
void count_pairs_cpu(const int32_t* table, int64_t num_offsets, int64_t num_out, int64_t center, int64_t* starts);
void list_pairs_cpu(const int32_t* table, int64_t num_offsets, int64_t num_out, int64_t center, const int64_t* starts,
                    int32_t* in_rows, int32_t* out_rows);

// The pairs of a strided convolution sorted by output cell; a record's value is (input row << kOffsetBits) | offset.
struct StridedPairs {
  static constexpr int kOffsetBits = 20;
  std::unique_ptr<Record[]> records;
  std::vector<int64_t> counts;  // per offset
  int64_t size, num_out;
};

StridedPairs strided_pairs_cpu(const int32_t* coords, int64_t num, int64_t batch_size, const Geometry& geometry);
void list_strided_pairs_cpu(const StridedPairs& pairs, const Geometry& geometry, int32_t* in_rows, int32_t* out_rows,
                            int32_t* out_coords);

// Largest batch index + 1.
int64_t batch_size_of(const int32_t* coords, int64_t num);

#endif

}  // namespace equilidar

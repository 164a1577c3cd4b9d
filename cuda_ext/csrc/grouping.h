// Points and voxels around centers, the first k of them: see equilidar/ops/grouping.py.
#pragma once

#include "interpolate.h"
#include "point_tree.h"

namespace equilidar {

// Collects the k lowest rows closer than the radius, in rising order.
template <typename T>
struct FirstRows {
  int64_t* rows;
  int64_t k;
  T radius_squared;
  int64_t count;

  EQL_HD T reach() const { return radius_squared; }
  EQL_HD bool wants(T, int32_t lowest_row) const { return count < k || lowest_row < rows[k - 1]; }

  EQL_HD void point(T squared, int64_t row) {
    if (!(squared < radius_squared) || (count == k && row >= rows[k - 1])) return;
    int64_t place = count < k ? count++ : k - 1;
    for (; place > 0 && rows[place - 1] > row; --place) rows[place] = rows[place - 1];
    rows[place] = row;
  }
};

// Repeat the first row where fewer than k were found; -1 where none was.
EQL_HD void pad_rows(int64_t* rows, int64_t count, int64_t k) {
  for (int64_t slot = count; slot < k; ++slot) rows[slot] = count > 0 ? rows[0] : -1;
}

template <typename T>
EQL_HD void ball_rows(
    const PointTree<T>& tree, const T* center, int64_t first, int64_t last, T radius, int64_t k, int64_t* rows) {
  FirstRows<T> found{rows, k, radius * radius, 0};
  if (first < last && is_finite(center)) {
    const Query<T> query{{center[0], center[1], center[2]}, static_cast<int32_t>(first), static_cast<int32_t>(last)};
    search_tree(tree, query, found);
  }
  pad_rows(rows, found.count, k);
}

// How far cells are looked at, (z, y, x), either way.
struct CellRange {
  int64_t of[3];
};

// A bit for each cell of a grid, by its key: tells of many neighbours at once which are worth looking up in the table.
// Without words every cell is.
struct CellBits {
  const uint64_t* words;
};

// Which of up to 64 cells with consecutive keys hold a voxel, the first in the lowest bit.
EQL_HD uint64_t occupied(const CellBits& bits, uint64_t key, int64_t count) {
  const uint64_t all = count >= 64 ? ~0ULL : (1ULL << count) - 1;
  if (bits.words == nullptr) return all;
  const uint64_t shift = key % 64;
  uint64_t found = bits.words[key / 64] >> shift;
  if (shift + count > 64) found |= bits.words[key / 64 + 1] << (64 - shift);
  return found & all;
}

// The first k voxels of the cells around a center, z slowest and x fastest, that are no farther than the radius.
template <typename T>
EQL_HD void voxel_rows_around(
    const CellTable& table, const CellBits& bits, const CellLimits& limits, const T* xyz, const T* center,
    const int64_t* cell, const CellRange& range, T radius, int64_t k, int64_t* rows) {
  const int64_t first = max_of<int64_t>(cell[3] - range.of[2], 0);
  const int64_t last = min_of<int64_t>(cell[3] + range.of[2], limits.of[3] - 1);
  int64_t count = 0;
  for (int64_t z = cell[1] - range.of[0]; z <= cell[1] + range.of[0] && count < k; ++z) {
    for (int64_t y = cell[2] - range.of[1]; y <= cell[2] + range.of[1] && count < k; ++y) {
      for (int64_t begin = first; begin <= last && count < k; begin += 64) {
        const int64_t near[4] = {cell[0], z, y, begin};
        const uint64_t key = cell_key(near, limits);  // of cells in a row along x the keys are, too
        if (key == kNoCell) break;
        uint64_t left = occupied(bits, key, min_of<int64_t>(last + 1 - begin, 64));
        for (; left != 0 && count < k; left &= left - 1) {
          const int64_t row = find_row(table, key + lowest_bit(left));
          if (row < 0) continue;
          const T* const point = xyz + 3 * row;
          const T squared = squared_distance(point[0] - center[0], point[1] - center[1], point[2] - center[2]);
          if (squared <= radius * radius) rows[count++] = row;
        }
      }
    }
  }
  pad_rows(rows, count, k);
}

// rows is (num_centers, k).
template <typename T>
void ball_query_cpu(
    const T* xyz, int64_t num_points, const int64_t* offsets, const T* centers, int64_t num_centers,
    const int64_t* center_offsets, int64_t num_items, T radius, int64_t k, int64_t* rows, Workspace& workspace);
template <typename T>
void ball_query_cuda(
    const T* xyz, int64_t num_points, const int64_t* offsets, const T* centers, int64_t num_centers,
    const int64_t* center_offsets, int64_t num_items, T radius, int64_t k, int64_t* rows, Workspace& workspace,
    Stream stream);

// coords (num_voxels, 4) with positions xyz; cells (num_centers, 4) are those of the centers.
template <typename T>
void voxel_query_cpu(
    const int32_t* coords, const T* xyz, int64_t num_voxels, CellLimits limits, const T* centers, const int64_t* cells,
    int64_t num_centers, CellRange range, T radius, int64_t k, int64_t* rows, Workspace& workspace);
template <typename T>
void voxel_query_cuda(
    const int32_t* coords, const T* xyz, int64_t num_voxels, CellLimits limits, const T* centers, const int64_t* cells,
    int64_t num_centers, CellRange range, T radius, int64_t k, int64_t* rows, Workspace& workspace, Stream stream);

}  // namespace equilidar

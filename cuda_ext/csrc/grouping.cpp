#include "grouping.h"

#include <algorithm>

#include "cpu_clones.h"
#include "parallel.h"

namespace equilidar {
namespace {

template <typename T>
struct BallSearch {
  const PointTree<T>* trees;
  const T* centers;
  const int64_t* offsets;
  const int64_t* center_offsets;
  int64_t num_items;
  T radius;
  int64_t k;
  int64_t* rows;

  void run(int64_t begin, int64_t end) const {
    int64_t item = item_of(begin, center_offsets, num_items);
    for (int64_t i = begin; i < end; ++i) {
      while (item + 1 < num_items && center_offsets[item + 1] <= i) ++item;
      ball_rows(trees[item], centers + 3 * i, offsets[item], offsets[item + 1], radius, k, rows + i * k);
    }
  }
};

EQL_CLONES void search_balls(const BallSearch<float>& search, int64_t begin, int64_t end) { search.run(begin, end); }
EQL_CLONES void search_balls(const BallSearch<double>& search, int64_t begin, int64_t end) { search.run(begin, end); }

// 32 MB of bits: beyond, setting them to zero costs more than they save.
constexpr int64_t kMostCells = int64_t{1} << 28;

CellBits build_bits(const int32_t* coords, int64_t num, const CellLimits& limits, Workspace& workspace) {
  int64_t cells = 1;
  for (const int64_t size : limits.of) {
    if (size > kMostCells / cells) return {nullptr};
    cells *= max_of<int64_t>(size, 1);
  }
  const int64_t count = cells / 64 + 2;  // one more is read behind the last
  uint64_t* const words = workspace.get<uint64_t>(count);
  std::fill_n(words, count, 0);
  for (int64_t row = 0; row < num; ++row) {
    const uint64_t key = cell_key(coords + 4 * row, limits);
    if (key != kNoCell) words[key / 64] |= 1ULL << key % 64;
  }
  return {words};
}

}  // namespace

template <typename T>
void ball_query_cpu(
    const T* xyz, int64_t, const int64_t* offsets, const T* centers, int64_t num_centers,
    const int64_t* center_offsets, int64_t num_items, T radius, int64_t k, int64_t* rows, Workspace& workspace) {
  if (num_centers == 0) return;
  const auto trees = build_trees_cpu(xyz, offsets, num_items, workspace);
  const BallSearch<T> search{trees.data(), centers, offsets, center_offsets, num_items, radius, k, rows};
  parallel_chunks(num_centers, 64, [&](int64_t begin, int64_t end) { search_balls(search, begin, end); });
}

template <typename T>
void voxel_query_cpu(
    const int32_t* coords, const T* xyz, int64_t num_voxels, CellLimits limits, const T* centers, const int64_t* cells,
    int64_t num_centers, CellRange range, T radius, int64_t k, int64_t* rows, Workspace& workspace) {
  const CellTable table = build_table_cpu(coords, num_voxels, limits, workspace);
  const CellBits bits = build_bits(coords, num_voxels, limits, workspace);
  parallel_for(num_centers, 64, [&](int64_t i) {
    voxel_rows_around(table, bits, limits, xyz, centers + 3 * i, cells + 4 * i, range, radius, k, rows + i * k);
  });
}

#define EQL_INSTANTIATE(T)                                                                                         \
  template void ball_query_cpu(                                                                                   \
      const T*, int64_t, const int64_t*, const T*, int64_t, const int64_t*, int64_t, T, int64_t, int64_t*,        \
      Workspace&);                                                                                                \
  template void voxel_query_cpu(                                                                                  \
      const int32_t*, const T*, int64_t, CellLimits, const T*, const int64_t*, int64_t, CellRange, T, int64_t,    \
      int64_t*, Workspace&);

EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar

#include "flow_pairing.h"

#include <algorithm>
#include <vector>

#include "cpu_clones.h"
#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kGrain = 256;

template <typename T>
struct MutualCheck {
  const std::vector<PointTree<T>>& trees;  // of the warped points
  const T* warped;
  const Pairing<T>& pairing;
  int64_t* match;

  void rows(int64_t begin, int64_t end) const {
    const int64_t* const offsets = pairing.source_offsets;
    int64_t item = item_of(begin, offsets, pairing.num_items);
    for (int64_t i = begin; i < end; ++i) {
      while (item + 1 < pairing.num_items && offsets[item + 1] <= i) ++item;
      if (match[i] < 0) continue;
      const T* const target = pairing.target + 3 * match[i];
      if (!is_mutual(trees[item], warped + 3 * i, i, target, offsets[item], offsets[item + 1])) match[i] = -1;
    }
  }
};

EQL_CLONES void check_rows(const MutualCheck<float>& check, int64_t begin, int64_t end) { check.rows(begin, end); }
EQL_CLONES void check_rows(const MutualCheck<double>& check, int64_t begin, int64_t end) { check.rows(begin, end); }

template <typename T>
struct Scatter {
  const T* features;
  int64_t num_features, channels;
  const int64_t* rows;
  const T* weights;
  Segments segments;
  T* out;
  int64_t* origin;

  void sum(int64_t begin, int64_t end) const {
    for (int64_t cell = begin; cell < end; ++cell) {
      scatter_sum_cell(features, num_features, channels, rows, weights, segments.order, segments.starts[cell],
                       segments.starts[cell + 1], 0, channels, out + cell * channels);
    }
  }

  void max(int64_t begin, int64_t end) const {
    for (int64_t cell = begin; cell < end; ++cell) {
      scatter_max_cell(features, num_features, channels, rows, segments.order, segments.starts[cell], segments.starts[cell + 1], 0,
                       channels, out + cell * channels, origin + cell * channels);
    }
  }
};

EQL_CLONES void sum_cells(const Scatter<float>& scatter, int64_t begin, int64_t end) { scatter.sum(begin, end); }
EQL_CLONES void sum_cells(const Scatter<double>& scatter, int64_t begin, int64_t end) { scatter.sum(begin, end); }
EQL_CLONES void max_cells(const Scatter<float>& scatter, int64_t begin, int64_t end) { scatter.max(begin, end); }
EQL_CLONES void max_cells(const Scatter<double>& scatter, int64_t begin, int64_t end) { scatter.max(begin, end); }

}  // namespace

template <typename T>
void match_cpu(const T* warped, const Pairing<T>& pairing, int64_t* match, Workspace& workspace) {
  k_nearest_cpu(warped, pairing.num_sources, pairing.source_offsets, pairing.target, pairing.num_targets,
                pairing.target_offsets, pairing.num_items, int64_t{1}, pairing.radius, match,
                workspace.get<T>(pairing.num_sources), workspace);
  if (!pairing.mutual || pairing.num_sources == 0) return;
  const auto trees = build_trees_cpu(warped, pairing.source_offsets, pairing.num_items, workspace);
  const MutualCheck<T> check{trees, warped, pairing, match};
  parallel_chunks(pairing.num_sources, 512, [&](int64_t begin, int64_t end) { check_rows(check, begin, end); });
}

template <typename T>
void flow_pairing_cpu(
    const T* source, const T* flow, const bool* valid, const T* linear, const T* translation, const Pairing<T>& pairing,
    const int64_t* source_voxels, const int64_t* target_voxels, T* warped, int64_t* match, int64_t* voxels,
    Workspace& workspace) {
  parallel_for(pairing.num_items, 1, [&](int64_t item) {
    for (int64_t i = pairing.source_offsets[item]; i < pairing.source_offsets[item + 1]; ++i) {
      warp_point(source + 3 * i, flow + 3 * i, valid[i], linear + 9 * item, translation + 3 * item, warped + 3 * i);
    }
  });
  match_cpu(warped, pairing, match, workspace);
  for (int64_t i = 0; i < pairing.num_sources; ++i) {
    voxels[2 * i] = match[i] < 0 ? -1 : source_voxels[i];
    voxels[2 * i + 1] = match[i] < 0 ? -1 : target_voxels[match[i]];
  }
}

void distinct_moves_cpu(
    const int64_t* rows, const int64_t* cells, const float* weights, int64_t num, int64_t num_rows, int64_t num_cells,
    int64_t* distinct_rows, int64_t* distinct_cells, float* sums, Workspace& workspace) {
  // By cell and then, without disturbing that, by row.
  const Segments by_cell = segments_cpu(cells, num, num_cells, workspace);
  const int64_t known = by_cell.starts[num_cells];
  int64_t* const row_by_cell = workspace.get<int64_t>(known);
  for (int64_t i = 0; i < known; ++i) {
    const uint32_t move = by_cell.order[i];
    row_by_cell[i] = weights[move] > 0 ? rows[move] : -1;
  }
  const Segments by_row = segments_cpu(row_by_cell, known, num_rows, workspace);
  const int64_t kept = by_row.starts[num_rows];
  int64_t first = 0;
  for (int64_t i = 0; i < num; ++i) {
    distinct_rows[i] = distinct_cells[i] = -1;
    sums[i] = 0;
    if (i >= kept) continue;
    const uint32_t move = by_cell.order[by_row.order[i]];
    if (i > 0 && rows[move] == distinct_rows[first] && cells[move] == distinct_cells[first]) {
      sums[first] += weights[move];
      continue;
    }
    first = i;
    distinct_rows[i] = rows[move];
    distinct_cells[i] = cells[move];
    sums[i] = weights[move];
  }
}

template <typename T>
void scatter_sum_cpu(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells,
    const T* weights, int64_t num, int64_t num_cells, T* out, Workspace& workspace) {
  const Segments segments = segments_cpu(cells, num, num_cells, workspace);
  const Scatter<T> scatter{features, num_features, channels, rows, weights, segments, out, nullptr};
  parallel_chunks(num_cells, kGrain, [&](int64_t begin, int64_t end) { sum_cells(scatter, begin, end); });
}

template <typename T>
void scatter_max_cpu(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells, int64_t num,
    int64_t num_cells, T* out, int64_t* origin, Workspace& workspace) {
  const Segments segments = segments_cpu(cells, num, num_cells, workspace);
  const Scatter<T> scatter{features, num_features, channels, rows, nullptr, segments, out, origin};
  parallel_chunks(num_cells, kGrain, [&](int64_t begin, int64_t end) { max_cells(scatter, begin, end); });
}

// Threads share out the channels, so that each sum has one owner. The moves are the GPU's way to the same sums.
template <typename T>
void scatter_max_backward_cpu(
    const T* grad, const int64_t* origin, int64_t channels, const int64_t*, const int64_t*, int64_t, int64_t num_cells,
    int64_t num_rows, T* out, Workspace&) {
  std::fill_n(out, num_rows * channels, T(0));
  parallel_chunks(channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t cell = 0; cell < num_cells; ++cell) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t row = origin[cell * channels + c];
        if (row >= 0) out[row * channels + c] += grad[cell * channels + c];
      }
    }
  });
}

#define EQL_INSTANTIATE(T)                                                                                            \
  template void match_cpu(const T*, const Pairing<T>&, int64_t*, Workspace&);                                        \
  template void flow_pairing_cpu(                                                                                    \
      const T*, const T*, const bool*, const T*, const T*, const Pairing<T>&, const int64_t*, const int64_t*, T*,    \
      int64_t*, int64_t*, Workspace&);                                                                               \
  template void scatter_sum_cpu(                                                                                     \
      const T*, int64_t, int64_t, const int64_t*, const int64_t*, const T*, int64_t, int64_t, T*, Workspace&);                \
  template void scatter_max_cpu(                                                                                     \
      const T*, int64_t, int64_t, const int64_t*, const int64_t*, int64_t, int64_t, T*, int64_t*, Workspace&);                \
  template void scatter_max_backward_cpu(                                                                            \
      const T*, const int64_t*, int64_t, const int64_t*, const int64_t*, int64_t, int64_t, int64_t, T*, Workspace&);

EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar

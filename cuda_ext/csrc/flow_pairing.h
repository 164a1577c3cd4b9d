// Pairing of sweeps by flow, and features carried from cell to cell: see equilidar/ops/flow_pairing.py.
#pragma once

#include "neighbors.h"
#include "segments.h"

namespace equilidar {

// linear @ (point + flow) + translation, not a number where the flow is unknown: such points neither pair nor compete.
template <typename T>
EQL_HD void warp_point(
    const T* point, const T* flow, bool valid, const T* linear, const T* translation, T* warped) {
  const T x = point[0] + flow[0], y = point[1] + flow[1], z = point[2] + flow[2];
  for (int axis = 0; axis < 3; ++axis) {
    const T* const row = linear + 3 * axis;
    warped[axis] = valid ? row[0] * x + row[1] * y + row[2] * z + translation[axis] : kNaN<T>;
  }
}

// Whether no other warped point of the item is nearer to the matched target point than the one that chose it.
template <typename T>
EQL_HD bool is_mutual(
    const PointTree<T>& warped_tree, const T* warped, int64_t row, const T* target, int64_t first, int64_t last) {
  const T hint = reach_of(squared_distance(warped[0] - target[0], warped[1] - target[1], warped[2] - target[2]));
  int64_t back;
  T away;
  nearest_rows(warped_tree, target, first, last, 1, kInfinity<T>, hint, &back, &away);
  return back == row;
}

// Sum of weights[e] * features[rows[e]] over the entries of one cell, channels [begin, end).
template <typename T>
EQL_HD void scatter_sum_cell(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights,
    const uint32_t* order, int64_t first, int64_t last, int64_t begin, int64_t end, T* out) {
  for (int64_t c = begin; c < end; ++c) out[c] = T(0);
  for (int64_t place = first; place < last; ++place) {
    const int64_t entry = order[place];
    if (rows[entry] < 0 || rows[entry] >= num_features) continue;
    const T* const feature = features + rows[entry] * channels;
    const T weight = weights[entry];
    for (int64_t c = begin; c < end; ++c) out[c] += weight * feature[c];
  }
}

// Largest feature of one cell's entries and the lowest row that has it; not a number has no origin but comes through.
template <typename T>
EQL_HD void scatter_max_cell(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const uint32_t* order, int64_t first,
    int64_t last, int64_t begin, int64_t end, T* out, int64_t* origin) {
  bool reached = false;
  for (int64_t place = first; place < last; ++place) {
    const int64_t row = rows[order[place]];
    if (row < 0 || row >= num_features) continue;
    const T* const feature = features + row * channels;
    for (int64_t c = begin; c < end; ++c) {
      const T value = feature[c];
      const bool is_nan = value != value;
      if (!reached || is_nan || value > out[c] || (value == out[c] && row < origin[c])) {
        out[c] = value;
        origin[c] = is_nan ? -1 : row;
      }
    }
    reached = true;
  }
  for (int64_t c = begin; c < end && !reached; ++c) {
    out[c] = T(0);
    origin[c] = -1;
  }
}

// Points of both sweeps, each of num_items items.
template <typename T>
struct Pairing {
  const T* target;
  int64_t num_targets;
  const int64_t* target_offsets;
  int64_t num_sources;
  const int64_t* source_offsets;
  int64_t num_items;
  T radius;
  bool mutual;
};

// match is (num_sources,): rows of the target, -1 for none.
template <typename T>
void match_cpu(const T* warped, const Pairing<T>& pairing, int64_t* match, Workspace& workspace);
template <typename T>
void match_cuda(const T* warped, const Pairing<T>& pairing, int64_t* match, Workspace& workspace, Stream stream);

// Warp first; then voxels (num_sources, 2) are those of each pair's points, -1 without a pair.
template <typename T>
void flow_pairing_cpu(
    const T* source, const T* flow, const bool* valid, const T* linear, const T* translation, const Pairing<T>& pairing,
    const int64_t* source_voxels, const int64_t* target_voxels, T* warped, int64_t* match, int64_t* voxels,
    Workspace& workspace);
template <typename T>
void flow_pairing_cuda(
    const T* source, const T* flow, const bool* valid, const T* linear, const T* translation, const Pairing<T>& pairing,
    const int64_t* source_voxels, const int64_t* target_voxels, T* warped, int64_t* match, int64_t* voxels,
    Workspace& workspace, Stream stream);

// Moves i: rows[i] -> cells[i]. The sorted moves, by row and then cell; the first of equal ones carries the sum of their
// weights, the others and those of unknown row or cell are -1 and weigh nothing.
void distinct_moves_cpu(
    const int64_t* rows, const int64_t* cells, const float* weights, int64_t num, int64_t num_rows, int64_t num_cells,
    int64_t* distinct_rows, int64_t* distinct_cells, float* sums, Workspace& workspace);
void distinct_moves_cuda(
    const int64_t* rows, const int64_t* cells, const float* weights, int64_t num, int64_t num_rows, int64_t num_cells,
    int64_t* distinct_rows, int64_t* distinct_cells, float* sums, Workspace& workspace, Stream stream);

// features (num_features, channels); rows, cells, weights (num,); out and origin (num_cells, channels).
template <typename T>
void scatter_sum_cpu(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells,
    const T* weights, int64_t num, int64_t num_cells, T* out, Workspace& workspace);
template <typename T>
void scatter_sum_cuda(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells,
    const T* weights, int64_t num, int64_t num_cells, T* out, Workspace& workspace, Stream stream);
template <typename T>
void scatter_max_cpu(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells, int64_t num,
    int64_t num_cells, T* out, int64_t* origin, Workspace& workspace);
template <typename T>
void scatter_max_cuda(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells, int64_t num,
    int64_t num_cells, T* out, int64_t* origin, Workspace& workspace, Stream stream);

// grad and origin (num_cells, channels), out (num_rows, channels), all of it written.
template <typename T>
void scatter_max_backward_cpu(
    const T* grad, const int64_t* origin, int64_t channels, const int64_t* rows, const int64_t* cells, int64_t num,
    int64_t num_cells, int64_t num_rows, T* out, Workspace& workspace);
template <typename T>
void scatter_max_backward_cuda(
    const T* grad, const int64_t* origin, int64_t channels, const int64_t* rows, const int64_t* cells, int64_t num,
    int64_t num_cells, int64_t num_rows, T* out, Workspace& workspace, Stream stream);

}  // namespace equilidar

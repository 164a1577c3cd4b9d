// Weighted reading of features and its transpose, and the rows of cells: see equilidar/ops/interpolate.py.
#pragma once

#include "cell_hash.h"
#include "constants.h"
#include "segments.h"

namespace equilidar {

// out[i] = sum over k of weights[i, k] * features[rows[i, k]]; rows outside [0, num_features) read nothing.
// Channels [begin, end).
template <typename T>
EQL_HD void gather_row(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights, int64_t k,
    int64_t begin, int64_t end, T* out) {
  for (int64_t c = begin; c < end; ++c) out[c] = T(0);
  for (int64_t slot = 0; slot < k; ++slot) {
    if (rows[slot] < 0 || rows[slot] >= num_features) continue;
    const T* const feature = features + rows[slot] * channels;
    const T weight = weights[slot];
    for (int64_t c = begin; c < end; ++c) out[c] += weight * feature[c];
  }
}

// out = sum over entries e = order[first ... last) of weights[e] * grad[e / k]. Channels [begin, end).
template <typename T>
EQL_HD void spread_row(
    const T* grad, int64_t channels, const uint32_t* order, int64_t first, int64_t last, const T* weights, int64_t k,
    int64_t begin, int64_t end, T* out) {
  for (int64_t c = begin; c < end; ++c) out[c] = T(0);
  for (int64_t place = first; place < last; ++place) {
    const int64_t entry = order[place];
    const T* const row = grad + entry / k * channels;
    const T weight = weights[entry];
    for (int64_t c = begin; c < end; ++c) out[c] += weight * row[c];
  }
}

// features (num_features, channels), rows and weights (num, k), out (num, channels).
template <typename T>
void gather_weighted_cpu(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights, int64_t num,
    int64_t k, T* out);
template <typename T>
void gather_weighted_cuda(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights, int64_t num,
    int64_t k, T* out, Stream stream);

// grad (num, channels), rows and weights (num, k), out (num_rows, channels).
template <typename T>
void spread_weighted_cpu(
    const T* grad, int64_t channels, const int64_t* rows, const T* weights, int64_t num, int64_t k, int64_t num_rows,
    T* out, Workspace& workspace);
template <typename T>
void spread_weighted_cuda(
    const T* grad, int64_t channels, const int64_t* rows, const T* weights, int64_t num, int64_t k, int64_t num_rows,
    T* out, Workspace& workspace, Stream stream);

// A hash table from cells of a grid to rows.
struct CellTable {
  uint64_t* keys;
  int64_t* rows;
  uint64_t mask;  // slots less one; slots are a power of two
};

// (batch, z, y, x).
struct CellLimits {
  int64_t of[4];
};

template <typename I>
EQL_HD uint64_t cell_key(const I* cell, const CellLimits& limits) {
  uint64_t key = 0;
  for (int axis = 0; axis < 4; ++axis) {
    const int64_t index = cell[axis];
    if (index < 0 || index >= limits.of[axis]) return kNoCell;
    key = key * static_cast<uint64_t>(limits.of[axis]) + static_cast<uint64_t>(index);
  }
  return key;
}

EQL_HD int64_t find_row(const CellTable& table, uint64_t key) {
  if (key == kNoCell) return -1;
  for (uint64_t slot = first_slot(key, table.mask);; slot = (slot + 1) & table.mask) {
    if (table.keys[slot] == key) return table.rows[slot];
    if (table.keys[slot] == kNoCell) return -1;
  }
}

// Table of coords (num, 4); of equal ones the lowest row.
CellTable build_table_cpu(const int32_t* coords, int64_t num, CellLimits limits, Workspace& workspace);
CellTable build_table_cuda(
    const int32_t* coords, int64_t num, CellLimits limits, Workspace& workspace, Stream stream);

// Row of each of `num` cells among the coords (num_coords, 4), -1 if none; of equal coords the lowest row.
template <typename I>
void find_cells_cpu(
    const int32_t* coords, int64_t num_coords, const I* cells, int64_t num, CellLimits limits, int64_t* rows,
    Workspace& workspace);
template <typename I>
void find_cells_cuda(
    const int32_t* coords, int64_t num_coords, const I* cells, int64_t num, CellLimits limits, int64_t* rows,
    Workspace& workspace, Stream stream);

}  // namespace equilidar

#include "interpolate.h"

#include <algorithm>

#include "cpu_clones.h"
#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kGrain = 256;  // rows

constexpr int64_t kAhead = 8;  // lookups in flight: it is the latency of memory that they wait for

EQL_CLONES void gather_rows(
    const float* features, int64_t num_features, int64_t channels, const int64_t* rows, const float* weights, int64_t k,
    int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i < end; ++i) {
    gather_row(features, num_features, channels, rows + i * k, weights + i * k, k, 0, channels, out + i * channels);
  }
}

EQL_CLONES void gather_rows(
    const double* features, int64_t num_features, int64_t channels, const int64_t* rows, const double* weights, int64_t k,
    int64_t begin, int64_t end, double* out) {
  for (int64_t i = begin; i < end; ++i) {
    gather_row(features, num_features, channels, rows + i * k, weights + i * k, k, 0, channels, out + i * channels);
  }
}

EQL_CLONES void spread_rows(
    const float* grad, int64_t channels, const Segments& segments, const float* weights, int64_t k, int64_t begin,
    int64_t end, float* out) {
  for (int64_t row = begin; row < end; ++row) {
    spread_row(grad, channels, segments.order, segments.starts[row], segments.starts[row + 1], weights, k, 0, channels,
               out + row * channels);
  }
}

EQL_CLONES void spread_rows(
    const double* grad, int64_t channels, const Segments& segments, const double* weights, int64_t k, int64_t begin,
    int64_t end, double* out) {
  for (int64_t row = begin; row < end; ++row) {
    spread_row(grad, channels, segments.order, segments.starts[row], segments.starts[row + 1], weights, k, 0, channels,
               out + row * channels);
  }
}

}  // namespace

template <typename T>
void gather_weighted_cpu(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights, int64_t num,
    int64_t k, T* out) {
  parallel_chunks(num, kGrain, [&](int64_t begin, int64_t end) {
    gather_rows(features, num_features, channels, rows, weights, k, begin, end, out);
  });
}

template <typename T>
void spread_weighted_cpu(
    const T* grad, int64_t channels, const int64_t* rows, const T* weights, int64_t num, int64_t k, int64_t num_rows,
    T* out, Workspace& workspace) {
  const Segments segments = segments_cpu(rows, num * k, num_rows, workspace);
  parallel_chunks(num_rows, kGrain, [&](int64_t begin, int64_t end) {
    spread_rows(grad, channels, segments, weights, k, begin, end, out);
  });
}

CellTable build_table_cpu(const int32_t* coords, int64_t num, CellLimits limits, Workspace& workspace) {
  const uint64_t slots = table_slots(num);
  const int64_t count = static_cast<int64_t>(slots);
  const CellTable table{workspace.get<uint64_t>(count), workspace.get<int64_t>(count), slots - 1};
  std::fill_n(table.keys, count, kNoCell);
  for (int64_t row = 0; row < num; ++row) {
    const uint64_t key = cell_key(coords + 4 * row, limits);
    if (key == kNoCell) continue;
    uint64_t slot = first_slot(key, table.mask);
    while (table.keys[slot] != kNoCell && table.keys[slot] != key) slot = (slot + 1) & table.mask;
    if (table.keys[slot] == key) continue;
    table.keys[slot] = key;
    table.rows[slot] = row;
  }
  return table;
}

template <typename I>
void find_cells_cpu(
    const int32_t* coords, int64_t num_coords, const I* cells, int64_t num, CellLimits limits, int64_t* rows,
    Workspace& workspace) {
  const CellTable table = build_table_cpu(coords, num_coords, limits, workspace);
  parallel_chunks(num, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) {
        const uint64_t coming = cell_key(cells + 4 * (i + kAhead), limits);
        if (coming != kNoCell) __builtin_prefetch(table.keys + first_slot(coming, table.mask));
      }
      rows[i] = find_row(table, cell_key(cells + 4 * i, limits));
    }
  });
}

template void gather_weighted_cpu(
    const float*, int64_t, int64_t, const int64_t*, const float*, int64_t, int64_t, float*);
template void gather_weighted_cpu(
    const double*, int64_t, int64_t, const int64_t*, const double*, int64_t, int64_t, double*);
template void spread_weighted_cpu(
    const float*, int64_t, const int64_t*, const float*, int64_t, int64_t, int64_t, float*, Workspace&);
template void spread_weighted_cpu(
    const double*, int64_t, const int64_t*, const double*, int64_t, int64_t, int64_t, double*, Workspace&);
template void find_cells_cpu(
    const int32_t*, int64_t, const int32_t*, int64_t, CellLimits, int64_t*, Workspace&);
template void find_cells_cpu(
    const int32_t*, int64_t, const int64_t*, int64_t, CellLimits, int64_t*, Workspace&);

}  // namespace equilidar

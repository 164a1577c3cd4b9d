#include "voxelize.h"

#include <algorithm>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kPoints = 4096;

bool begins_voxel(const VoxelOrder& order, int64_t i) {
  const uint64_t key = order.records[i].key;
  return key != uint64_t(order.outside_key) && (i == 0 || key != order.records[i - 1].key);
}

}  // namespace

template <typename T>
VoxelOrder sort_points_cpu(const T* xyz, const int64_t* offsets, int64_t num_items, const VoxelGrid<T>& grid) {
  const int64_t num = offsets[num_items];
  VoxelOrder order{nullptr, num, num_items * grid.shape.volume(), {}, 0};
  order.records.reset(new Record[num]);
  parallel_chunks(num, kPoints, [&](int64_t begin, int64_t end) {
    int64_t item = item_of(offsets, num_items, begin);
    for (int64_t i = begin; i < end; ++i) {
      while (i >= offsets[item + 1]) ++item;
      const int64_t key = voxel_key(xyz + 3 * i, item, grid);
      order.records[i] = {uint64_t(key < 0 ? order.outside_key : key), uint64_t(i)};
    }
  });
  radix_sort(order.records, num, bits_of(uint64_t(order.outside_key) + 1));
  const int64_t chunks = (num + kPoints - 1) / kPoints;
  order.starts.resize(chunks + 1);
  parallel_chunks(num, kPoints, [&](int64_t begin, int64_t end) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) count += begins_voxel(order, i);
    order.starts[begin / kPoints + 1] = count;
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk) order.starts[chunk + 1] += order.starts[chunk];
  order.num_voxels = order.starts[chunks];
  return order;
}

void voxel_rows_cpu(const VoxelOrder& order, const Cells& shape, int64_t* rows, int32_t* coords) {
  parallel_chunks(order.num_points, kPoints, [&](int64_t begin, int64_t end) {
    int64_t row = order.starts[begin / kPoints] - 1;
    for (int64_t i = begin; i < end; ++i) {
      const Record& record = order.records[i];
      if (begins_voxel(order, i)) cell_of_key(int64_t(record.key), shape, coords + 4 * ++row);
      rows[record.value] = record.key == uint64_t(order.outside_key) ? -1 : row;
    }
  });
}

template <typename T>
void mean_by_row_cpu(const T* values, const int64_t* rows, int64_t num_values, int64_t channels, int64_t num_rows, T* mean) {
  std::vector<int32_t> counts(num_rows);
  std::fill_n(mean, num_rows * channels, T(0));
  // One thread: a pass over the points takes as long as reading them, and their order is that of the sums.
  for (int64_t i = 0; i < num_values; ++i) {
    const int64_t row = rows[i];
    if (row < 0) continue;
    ++counts[row];
    for (int64_t c = 0; c < channels; ++c) mean[row * channels + c] += values[i * channels + c];
  }
  parallel_for(num_rows, kPoints, [&](int64_t row) {
    const T count = T(max_of(counts[row], 1));
    for (int64_t c = 0; c < channels; ++c) mean[row * channels + c] /= count;
  });
}

int64_t hard_slots_cpu(const int64_t* rows, const int64_t* offsets, int64_t num_items, int64_t num_voxels,
                       int64_t max_points, int64_t max_voxels, int64_t* kept, int64_t* slots) {
  // Place of each voxel among the kept ones; -1 for one refused, -2 for one not met yet.
  std::vector<int64_t> places(num_voxels, -2);
  std::vector<int32_t> used;
  int64_t num_kept = 0;
  for (int64_t item = 0; item < num_items; ++item) {
    const int64_t full = num_kept + max_voxels;
    for (int64_t i = offsets[item]; i < offsets[item + 1]; ++i) {
      slots[i] = -1;
      if (rows[i] < 0) continue;
      int64_t& place = places[rows[i]];
      if (place == -2) {
        place = num_kept < full ? num_kept : -1;
        if (place >= 0) {
          kept[num_kept++] = rows[i];
          used.push_back(0);
        }
      }
      if (place >= 0 && used[place] < max_points) slots[i] = place * max_points + used[place]++;
    }
  }
  return num_kept;
}

#define EQL_INSTANTIATE(T)                                                                              \
  template VoxelOrder sort_points_cpu(const T*, const int64_t*, int64_t, const VoxelGrid<T>&);          \
  template void mean_by_row_cpu(const T*, const int64_t*, int64_t, int64_t, int64_t, T*);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar

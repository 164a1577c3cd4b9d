#include "voxelize.h"

#include <algorithm>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kPoints = 4096;

bool begins_voxel(const VoxelOrder& order, int64_t i) {
  const uint64_t key = order.records[i].key;
  return key != uint64_t(order.keys.outside) && (i == 0 || key != order.records[i - 1].key);
}

}  // namespace

template <typename T>
VoxelOrder sort_points_cpu(const T* xyz, const int64_t* offsets, int64_t num_items, const VoxelGrid<T>& grid) {
  const int64_t num = offsets[num_items];
  VoxelOrder order{nullptr, num, VoxelKeys(grid.shape, num_items), {}, 0};
  order.records.reset(new Record[num]);
  const VoxelKeys keys = order.keys;
  parallel_chunks(num, kPoints, [&](int64_t begin, int64_t end) {
    int64_t item = item_of(offsets, num_items, begin);
    for (int64_t i = begin; i < end; ++i) {
      while (i >= offsets[item + 1]) ++item;
      order.records[i] = {uint64_t(voxel_key(xyz + 3 * i, item, grid, keys)), uint64_t(i)};
    }
  });
  radix_sort(order.records, num, keys.bits);
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

void voxel_rows_cpu(const VoxelOrder& order, int64_t* rows, int32_t* coords) {
  parallel_chunks(order.num_points, kPoints, [&](int64_t begin, int64_t end) {
    int64_t row = order.starts[begin / kPoints] - 1;
    for (int64_t i = begin; i < end; ++i) {
      const Record& record = order.records[i];
      if (begins_voxel(order, i)) order.keys.unpack(int64_t(record.key), coords + 4 * ++row);
      rows[record.value] = record.key == uint64_t(order.keys.outside) ? -1 : row;
    }
  });
}

namespace {

// CHANNELS: those of the features where the compiler shall know them, -1 elsewhere.
template <int CHANNELS, typename T>
void means_of_chunk(const VoxelOrder& order, int64_t begin, int64_t end, const T* xyz, const T* features, int64_t given,
                    T* mean) {
  const int64_t channels = CHANNELS < 0 ? given : CHANNELS, num = order.num_points;
  for (int64_t i = begin; i < end;) {
    const uint64_t key = order.records[i].key;
    if (!begins_voxel(order, i)) {
      ++i;
      continue;
    }
    // A voxel is of the chunk that it begins in. Most hold one point.
    const int64_t first = int64_t(order.records[i].value);
    T x = xyz[3 * first], y = xyz[3 * first + 1], z = xyz[3 * first + 2];
    for (int64_t c = 0; c < channels; ++c) mean[3 + c] = features[channels * first + c];
    int64_t last = i + 1;
    for (; last < num && order.records[last].key == key; ++last) {
      const int64_t point = int64_t(order.records[last].value);
      x += xyz[3 * point];
      y += xyz[3 * point + 1];
      z += xyz[3 * point + 2];
      for (int64_t c = 0; c < channels; ++c) mean[3 + c] += features[channels * point + c];
    }
    const T count = T(last - i);
    mean[0] = x / count;
    mean[1] = y / count;
    mean[2] = z / count;
    for (int64_t c = 0; c < channels; ++c) mean[3 + c] /= count;
    mean += 3 + channels;
    i = last;
  }
}

}  // namespace

template <typename T>
void voxel_means_cpu(const VoxelOrder& order, const T* xyz, const T* features, int64_t channels, T* means) {
  const auto run = channels == 1   ? means_of_chunk<1, T>
                   : channels == 2 ? means_of_chunk<2, T>
                                   : means_of_chunk<-1, T>;
  parallel_chunks(order.num_points, kPoints, [&](int64_t begin, int64_t end) {
    run(order, begin, end, xyz, features, channels, means + order.starts[begin / kPoints] * (3 + channels));
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
  template void voxel_means_cpu(const VoxelOrder&, const T*, const T*, int64_t, T*);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar

#include "voxel_slots.h"

#include <algorithm>

#include "cell_hash.h"
#include "parallel.h"
#include "voxel_cells.h"

namespace equilidar {
namespace {

constexpr int64_t kRows = 32768;  // per task

}  // namespace

template <typename T>
FirstVoxels voxel_slots_cpu(const T* xyz, const int64_t* offsets, int64_t num_items, const VoxelGrid<T>& grid,
                            int64_t max_points, int64_t max_voxels, int64_t* slots) {
  const Clouds<T> clouds(xyz, offsets, num_items, grid);
  FirstVoxels found{clouds.keys, std::vector<FirstVoxels::Item>(num_items), 0};
  parallel_for(num_items, 1, [&](int64_t item) {
    const int64_t begin = offsets[item], end = offsets[item + 1], most = min_of(end - begin, max_voxels);
    FirstVoxels::Item own{};
    own.keys.reset(new uint64_t[most]);
    own.num_points.reset(new int64_t[most]);
    const uint64_t size = table_slots(end - begin), mask = size - 1;
    const std::unique_ptr<uint64_t[]> held(new uint64_t[size]);
    const std::unique_ptr<int32_t[]> places(new int32_t[size]);
    std::fill_n(held.get(), size, kNoCell);
    // Of the point before, which often shares the voxel; place -1 for a voxel that is not kept.
    uint64_t last = kNoCell;
    int64_t place = -1;
    clouds.for_each_block(begin, end, [&](int64_t first, const uint64_t* keys, int64_t num) {
      for (int64_t i = 0; i < num; ++i) {
        const uint64_t key = keys[i];
        slots[first + i] = -1;
        if (key == kNoCell) continue;
        if (key != last) {
          last = key;
          uint64_t slot = first_slot(key, mask);
          while (held[slot] != key && held[slot] != kNoCell) slot = (slot + 1) & mask;
          if (held[slot] == kNoCell && own.num < most) {
            held[slot] = key;
            places[slot] = int32_t(own.num);
            own.keys[own.num] = key;
            own.num_points[own.num++] = 0;
          }
          place = held[slot] == key ? places[slot] : -1;
        }
        if (place < 0 || own.num_points[place] == max_points) continue;
        slots[first + i] = place * max_points + own.num_points[place]++;
      }
    });
    found.items[item] = std::move(own);
  });
  for (int64_t item = 0; item < num_items; ++item) {
    const int64_t before = found.num_voxels * max_points;
    if (before > 0) {
      for (int64_t i = offsets[item]; i < offsets[item + 1]; ++i) slots[i] += slots[i] < 0 ? 0 : before;
    }
    found.num_voxels += found.items[item].num;
  }
  return found;
}

void FirstVoxels::list(int32_t* coords, int64_t* num_points) const {
  for (const Item& item : items) {
    for (int64_t row = 0; row < item.num; ++row, coords += 4) keys.unpack(int64_t(item.keys[row]), coords);
    num_points = std::copy_n(item.num_points.get(), item.num, num_points);
  }
}

template <typename T>
void fill_voxel_slots_cpu(const T* xyz, const T* features, int64_t channels, const int64_t* slots, int64_t num_points,
                          const int64_t* used, int64_t num_voxels, int64_t max_points, T* padded) {
  const int64_t width = 3 + channels;
  parallel_for(num_voxels, kRows, [&](int64_t row) {
    std::fill_n(padded + (row * max_points + used[row]) * width, (max_points - used[row]) * width, T(0));
  });
  parallel_for(num_points, kRows, [&](int64_t i) {
    if (slots[i] < 0) return;
    T* const to = padded + slots[i] * width;
    for (int64_t axis = 0; axis < 3; ++axis) to[axis] = xyz[3 * i + axis];
    for (int64_t c = 0; c < channels; ++c) to[3 + c] = features[channels * i + c];
  });
}

#define EQL_INSTANTIATE(T)                                                                                             \
  template FirstVoxels voxel_slots_cpu(const T*, const int64_t*, int64_t, const VoxelGrid<T>&, int64_t, int64_t,       \
                                       int64_t*);                                                                      \
  template void fill_voxel_slots_cpu(const T*, const T*, int64_t, const int64_t*, int64_t, const int64_t*, int64_t,    \
                                     int64_t, T*);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar

// Voxels capped in number and in points: see equilidar/ops/voxelize.py. On the CPU alone.
#pragma once

#include "voxelize.h"

namespace equilidar {

// Voxels that are kept, in the order of their first points.
struct FirstVoxels {
  struct Item {
    std::unique_ptr<uint64_t[]> keys;
    std::unique_ptr<int64_t[]> num_points;  // that each keeps
    int64_t num;
  };
  VoxelKeys keys;
  std::vector<Item> items;
  int64_t num_voxels;
  // coords (num_voxels, 4), num_points (num_voxels).
  void list(int32_t* coords, int64_t* num_points) const;
};

// Writes each point's place, (kept voxel * max_points + slot), to slots (num_points); -1 for none.
template <typename T>
FirstVoxels voxel_slots_cpu(const T* xyz, const int64_t* offsets, int64_t num_items, const VoxelGrid<T>& grid,
                            int64_t max_points, int64_t max_voxels, int64_t* slots);

// padded (num_voxels, max_points, 3 + channels): xyz and features where `slots` says, zeros in unused slots.
template <typename T>
void fill_voxel_slots_cpu(const T* xyz, const T* features, int64_t channels, const int64_t* slots, int64_t num_points,
                          const int64_t* used, int64_t num_voxels, int64_t max_points, T* padded);

}  // namespace equilidar

#include "voxel_cells.h"

#include "cpu_clones.h"

namespace equilidar {

EQL_CLONES void keys_of_points(const AxisLanes<float>& axes, const float* xyz, int64_t num, const VoxelKeys& layout,
                               uint64_t* keys) {
  axes.keys_of(xyz, num, layout, keys);
}
EQL_CLONES void keys_of_points(const AxisLanes<double>& axes, const double* xyz, int64_t num, const VoxelKeys& layout,
                               uint64_t* keys) {
  axes.keys_of(xyz, num, layout, keys);
}

}  // namespace equilidar

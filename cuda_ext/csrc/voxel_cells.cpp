#include "voxel_cells.h"

#include "cpu_clones.h"

namespace equilidar {

EQL_CLONES void cells_of_values(const AxisLanes<float>& axes, const float* values, int64_t num, int32_t* cells) {
  axes.cells_of(values, num, cells);
}
EQL_CLONES void cells_of_values(const AxisLanes<double>& axes, const double* values, int64_t num, int32_t* cells) {
  axes.cells_of(values, num, cells);
}

}  // namespace equilidar

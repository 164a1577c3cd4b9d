// Bindings of ops on points.
#include "bind/binding.h"
#include "bind/tensor_workspace.h"
#include "distance_transform.h"
#include "flow_pairing.h"
#include "grouping.h"
#include "move_points.h"
#include "neighbors.h"
#include "sampling.h"

namespace equilidar {
namespace {

std::tuple<Tensor, Tensor> k_nearest(
    const Tensor& query, const Tensor& query_offsets, const Tensor& reference, const Tensor& reference_offsets, int64_t k,
    double radius) {
  const Tensor q = query.contiguous(), r = reference.contiguous();
  const Tensor q_offsets = query_offsets.contiguous(), r_offsets = reference_offsets.contiguous();
  Tensor index = at::empty({q.size(0), k}, q_offsets.options());
  Tensor distance = at::empty({q.size(0), k}, q.options());
  TensorWorkspace workspace(q);
  AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "k_nearest", [&] {
    EQL_RUN(q, k_nearest, q.const_data_ptr<scalar_t>(), q.size(0), q_offsets.const_data_ptr<int64_t>(),
            r.const_data_ptr<scalar_t>(), r.size(0), r_offsets.const_data_ptr<int64_t>(), q_offsets.size(0) - 1, k,
            static_cast<scalar_t>(radius), index.mutable_data_ptr<int64_t>(), distance.mutable_data_ptr<scalar_t>(),
            workspace);
  });
  return {index, distance};
}

template <typename T>
Pairing<T> pairing_of(
    const Tensor& source_offsets, int64_t num_sources, const Tensor& target, const Tensor& target_offsets, double radius,
    bool mutual) {
  return {target.const_data_ptr<T>(),
          target.size(0),
          target_offsets.const_data_ptr<int64_t>(),
          num_sources,
          source_offsets.const_data_ptr<int64_t>(),
          source_offsets.size(0) - 1,
          static_cast<T>(radius),
          mutual};
}

Tensor match_flow(
    const Tensor& warped, const Tensor& source_offsets, const Tensor& target, const Tensor& target_offsets, double radius,
    bool mutual) {
  const Tensor moved = warped.contiguous(), others = target.contiguous();
  const Tensor s_offsets = source_offsets.contiguous(), t_offsets = target_offsets.contiguous();
  Tensor match = at::empty({moved.size(0)}, s_offsets.options());
  TensorWorkspace workspace(moved);
  AT_DISPATCH_FLOATING_TYPES(moved.scalar_type(), "match_flow", [&] {
    const auto pairing = pairing_of<scalar_t>(s_offsets, moved.size(0), others, t_offsets, radius, mutual);
    EQL_RUN(moved, match, moved.const_data_ptr<scalar_t>(), pairing, match.mutable_data_ptr<int64_t>(), workspace);
  });
  return match;
}

std::tuple<Tensor, Tensor, Tensor> flow_pairing(
    const Tensor& source, const Tensor& flow, const Tensor& valid, const Tensor& source_offsets, const Tensor& linear,
    const Tensor& translation, const Tensor& target, const Tensor& target_offsets, const Tensor& source_voxels,
    const Tensor& target_voxels, double radius, bool mutual) {
  const Tensor points = source.contiguous(), moves = flow.contiguous(), known = valid.contiguous();
  const Tensor maps = linear.contiguous(), shifts = translation.contiguous(), others = target.contiguous();
  const Tensor s_offsets = source_offsets.contiguous(), t_offsets = target_offsets.contiguous();
  const Tensor s_voxels = source_voxels.contiguous(), t_voxels = target_voxels.contiguous();
  Tensor warped = at::empty({points.size(0), 3}, points.options());
  Tensor match = at::empty({points.size(0)}, s_offsets.options());
  Tensor voxels = at::empty({points.size(0), 2}, s_offsets.options());
  TensorWorkspace workspace(points);
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "flow_pairing", [&] {
    const auto pairing = pairing_of<scalar_t>(s_offsets, points.size(0), others, t_offsets, radius, mutual);
    EQL_RUN(points, flow_pairing, points.const_data_ptr<scalar_t>(), moves.const_data_ptr<scalar_t>(),
            known.const_data_ptr<bool>(), maps.const_data_ptr<scalar_t>(), shifts.const_data_ptr<scalar_t>(), pairing,
            s_voxels.const_data_ptr<int64_t>(), t_voxels.const_data_ptr<int64_t>(), warped.mutable_data_ptr<scalar_t>(),
            match.mutable_data_ptr<int64_t>(), voxels.mutable_data_ptr<int64_t>(), workspace);
  });
  return {warped, match, voxels};
}

Tensor farthest_points(const Tensor& xyz, const Tensor& offsets, int64_t num) {
  const Tensor points = xyz.contiguous(), starts = offsets.contiguous();
  Tensor rows = at::empty({starts.size(0) - 1, num}, starts.options());
  TensorWorkspace workspace(points);
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "farthest_points", [&] {
    EQL_RUN(points, farthest_points, points.const_data_ptr<scalar_t>(), points.size(0), starts.const_data_ptr<int64_t>(),
            rows.size(0), num, rows.mutable_data_ptr<int64_t>(), workspace);
  });
  return rows;
}

Tensor ball_query(
    const Tensor& xyz, const Tensor& offsets, const Tensor& centers, const Tensor& center_offsets, double radius,
    int64_t k) {
  const Tensor points = xyz.contiguous(), around = centers.contiguous();
  const Tensor starts = offsets.contiguous(), center_starts = center_offsets.contiguous();
  Tensor rows = at::empty({around.size(0), k}, starts.options());
  TensorWorkspace workspace(points);
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "ball_query", [&] {
    EQL_RUN(points, ball_query, points.const_data_ptr<scalar_t>(), points.size(0), starts.const_data_ptr<int64_t>(),
            around.const_data_ptr<scalar_t>(), around.size(0), center_starts.const_data_ptr<int64_t>(),
            starts.size(0) - 1, static_cast<scalar_t>(radius), k, rows.mutable_data_ptr<int64_t>(), workspace);
  });
  return rows;
}

Tensor voxel_query(
    const Tensor& coords, const Tensor& xyz, at::IntArrayRef limits, const Tensor& centers, const Tensor& cells,
    at::IntArrayRef max_range, double radius, int64_t k) {
  const Tensor held = coords.to(at::kInt).contiguous(), points = xyz.contiguous();
  const Tensor around = centers.contiguous(), near = cells.to(at::kLong).contiguous();
  Tensor rows = at::empty({around.size(0), k}, near.options());
  const CellLimits shape{{limits[0], limits[1], limits[2], limits[3]}};
  const CellRange range{{max_range[0], max_range[1], max_range[2]}};
  TensorWorkspace workspace(points);
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "voxel_query", [&] {
    EQL_RUN(points, voxel_query, held.const_data_ptr<int32_t>(), points.const_data_ptr<scalar_t>(), held.size(0), shape,
            around.const_data_ptr<scalar_t>(), near.const_data_ptr<int64_t>(), around.size(0), range,
            static_cast<scalar_t>(radius), k, rows.mutable_data_ptr<int64_t>(), workspace);
  });
  return rows;
}

std::tuple<Tensor, Tensor> move_points(
    const Tensor& xyz, const Tensor& offsets, const Tensor& linear, const Tensor& translation,
    at::ArrayRef<double> low, at::ArrayRef<double> size, at::IntArrayRef cells) {
  const Tensor points = xyz.contiguous(), starts = offsets.contiguous();
  const Tensor maps = linear.contiguous(), shifts = translation.contiguous();
  Tensor moved = at::empty({points.size(0), 3}, points.options());
  Tensor inside = at::empty({points.size(0)}, points.options().dtype(at::kBool));
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "move_points", [&] {
    GridFrame<scalar_t> grid;
    for (int axis = 0; axis < 3; ++axis) {
      grid.low[axis] = static_cast<scalar_t>(low[axis]);
      grid.size[axis] = static_cast<scalar_t>(size[axis]);
      grid.cells[axis] = static_cast<scalar_t>(cells[axis]);
    }
    EQL_RUN(points, move_points, points.const_data_ptr<scalar_t>(), points.size(0), starts.const_data_ptr<int64_t>(),
            starts.size(0) - 1, maps.const_data_ptr<scalar_t>(), shifts.const_data_ptr<scalar_t>(), grid,
            moved.mutable_data_ptr<scalar_t>(), inside.mutable_data_ptr<bool>());
  });
  return {moved, inside};
}

GridShape shape_of(const Tensor& grids) { return {grids.size(0), {grids.size(1), grids.size(2), grids.size(3)}}; }

Tensor distance_transform(const Tensor& occupied, at::ArrayRef<double> cell_size, double max_distance) {
  const Tensor cells = occupied.contiguous();
  Tensor distance = at::empty(cells.sizes(), cells.options().dtype(at::kFloat));
  TensorWorkspace workspace(cells);
  EQL_RUN(cells, distance_transform, cells.const_data_ptr<bool>(), shape_of(cells), cell_size.data(), max_distance,
          distance.mutable_data_ptr<float>(), workspace);
  return distance;
}

template <typename T>
FieldFrame<T> frame_of(at::ArrayRef<double> low, at::ArrayRef<double> size) {
  FieldFrame<T> frame;
  for (int axis = 0; axis < 3; ++axis) {
    frame.low[axis] = static_cast<T>(low[axis]);
    frame.size[axis] = static_cast<T>(size[axis]);
  }
  return frame;
}

Tensor sample_field(
    const Tensor& field, const Tensor& xyz, const Tensor& offsets, at::ArrayRef<double> low, at::ArrayRef<double> size) {
  const Tensor held = field.contiguous(), points = xyz.contiguous(), starts = offsets.contiguous();
  Tensor values = at::empty({points.size(0)}, points.options());
  AT_DISPATCH_FLOATING_TYPES(held.scalar_type(), "sample_field", [&] {
    EQL_RUN(held, sample_field, held.const_data_ptr<scalar_t>(), shape_of(held), frame_of<scalar_t>(low, size),
            points.const_data_ptr<scalar_t>(), points.size(0), starts.const_data_ptr<int64_t>(),
            values.mutable_data_ptr<scalar_t>());
  });
  return values;
}

Tensor sample_field_backward(
    const Tensor& grad, const Tensor& field, const Tensor& xyz, const Tensor& offsets, at::ArrayRef<double> low,
    at::ArrayRef<double> size) {
  const Tensor g = grad.contiguous(), held = field.contiguous(), points = xyz.contiguous();
  const Tensor starts = offsets.contiguous();
  Tensor slopes = at::empty({points.size(0), 3}, points.options());
  AT_DISPATCH_FLOATING_TYPES(held.scalar_type(), "sample_field_backward", [&] {
    EQL_RUN(held, sample_field_backward, g.const_data_ptr<scalar_t>(), held.const_data_ptr<scalar_t>(), shape_of(held),
            frame_of<scalar_t>(low, size), points.const_data_ptr<scalar_t>(), points.size(0),
            starts.const_data_ptr<int64_t>(), slopes.mutable_data_ptr<scalar_t>());
  });
  return slopes;
}

}  // namespace

EQL_REGISTER("ball_query", ball_query)
EQL_REGISTER("distance_transform", distance_transform)
EQL_REGISTER("farthest_points", farthest_points)
EQL_REGISTER("flow_pairing", flow_pairing)
EQL_REGISTER("k_nearest", k_nearest)
EQL_REGISTER("match_flow", match_flow)
EQL_REGISTER("move_points", move_points)
EQL_REGISTER("sample_field", sample_field)
EQL_REGISTER("sample_field_backward", sample_field_backward)
EQL_REGISTER("voxel_query", voxel_query)

}  // namespace equilidar

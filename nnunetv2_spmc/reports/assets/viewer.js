// The viewer of the report: NiiVue with one grey image and up to four overlays.
"use strict";
(() => {
  const { cases, labelColors, difficultyColor } = JSON.parse(
    document.getElementById("viewer-data").textContent
  );
  const element = (id) => document.getElementById(id);
  const canvas = element("viewer-canvas");
  const slider = element("viewer-slice");
  const AXES = { axial: 2, coronal: 1, sagittal: 0 }; // of right-anterior-superior space
  const SLICE_TYPES = { axial: 0, coronal: 1, sagittal: 2, multiplanar: 3 };
  const LAYERS = ["reference", "prediction", "doubt", "difficulty"];

  const rgb = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));

  // value 0 is transparent, the colours repeat as those of the figures do
  function colorTable(colors, numValues) {
    const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (let value = 1; value < numValues; value += 1) {
      const [red, green, blue] = rgb(colors[(value - 1) % colors.length]);
      table.R.push(red);
      table.G.push(green);
      table.B.push(blue);
      table.A.push(255);
      table.I.push(value);
      table.labels.push("");
    }
    return table;
  }

  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 1, 1, 0.6],
    dragAndDropEnabled: false,
    fontColor: [1, 0.8, 0.2, 1], // of the letters R, L, A, P, S, I
    fontMinPx: 18,
    isOrientationTextVisible: true,
    isRadiologicalConvention: true, // as the figures: the patient's right is on the left
    isResizeCanvas: true,
    loadingText: "",
    logLevel: "error",
    multiplanarShowRender: 0, // slices only
    sagittalNoseLeft: true,
    scrollRequiresFocus: true,
    showAllOrientationMarkers: true,
  });
  let shown = {}; // layer -> index of its volume
  let shownCase = null;
  let loading = Promise.resolve();

  async function load() {
    const chosen = cases[Number(element("viewer-case").value)];
    const run = chosen.runs[Math.min(Number(element("viewer-run").value), chosen.runs.length - 1)];
    const content = { reference: chosen.reference, ...run };
    const sameCase = shownCase === chosen; // another run of it: stay at the slice
    const position = [...nv.scene.crosshairPos];
    while (nv.volumes.length) nv.removeVolumeByIndex(nv.volumes.length - 1);
    const add = async (base64, options) => {
      const volume = await niivue.NVImage.loadFromBase64({ base64, ...options });
      nv.addVolume(volume);
      return volume;
    };
    await add(chosen.image, { name: "image.nii.gz", colormap: "gray", cal_min: 0, cal_max: 255 });
    shown = {};
    for (const layer of LAYERS) {
      const control = element(`viewer-${layer}`);
      control.disabled = !content[layer];
      if (!content[layer]) continue;
      shown[layer] = nv.volumes.length;
      const opacity = Number(control.value) / 100;
      if (layer === "doubt") {
        const limits = { cal_min: 5, cal_max: 140 };
        await add(content[layer], { name: "doubt.nii.gz", colormap: "hot", opacity, ...limits });
        continue;
      }
      const volume = await add(content[layer], { name: `${layer}.nii.gz`, opacity });
      const isMask = layer === "difficulty";
      volume.setColormapLabel(
        isMask ? colorTable([difficultyColor], 2) : colorTable(labelColors, 256)
      );
    }
    nv.updateGLVolume();
    nv.opts.isOrientationTextVisible = chosen.is_oriented;
    // the plane of the figure, unless the user has chosen another
    if (!shownCase || plane() === shownCase.plane) element("viewer-plane").value = chosen.plane;
    shownCase = chosen;
    nv.scene.crosshairPos = sameCase ? position : startOf(chosen);
    showPlane();
    canvas.dataset.loaded = `${chosen.name}/${run.name}`;
  }

  const plane = () => element("viewer-plane").value;
  const sliceAxis = () => AXES[plane()] ?? AXES.axial;
  const numSlices = (axis) => nv.volumes[0].dimsRAS[axis + 1];

  // Slices are counted as the figures do, in the order in which the scan is stored
  function sliceAt(axis, fraction) {
    const along = shownCase.axes[axis].reversed ? 1 - fraction : fraction;
    return Math.min(Math.max(Math.floor(along * numSlices(axis)) + 1, 1), numSlices(axis));
  }

  function centerOf(axis, number) {
    const along = (number - 0.5) / numSlices(axis);
    return shownCase.axes[axis].reversed ? 1 - along : along;
  }

  // the centres of slices: between two of them it would be chance which one is drawn
  const startOf = (chosen) =>
    [...nv.mm2frac(chosen.start_mm)].map((fraction, axis) => centerOf(axis, sliceAt(axis, fraction)));

  function showPlane() {
    nv.setCrosshairWidth(plane() === "multiplanar" ? 0.3 : 0); // hides voxels in a single plane
    nv.setSliceType(SLICE_TYPES[plane()]);
    slider.max = numSlices(sliceAxis());
    showPosition();
    nv.drawScene();
  }

  function showPosition() {
    if (!nv.volumes.length || !shownCase) return;
    const number = sliceAt(sliceAxis(), nv.scene.crosshairPos[sliceAxis()]);
    slider.value = number;
    const { size, factor } = shownCase.axes[sliceAxis()];
    const last = Math.min(number * factor, size); // a slice of the viewer may be several of the scan
    const first = Math.min((number - 1) * factor + 1, last);
    const range = first === last ? `${last}` : `${first}-${last}`;
    element("viewer-slice-text").textContent = `${range} of ${size}`;
  }

  function moveToSlice() {
    const position = [...nv.scene.crosshairPos];
    position[sliceAxis()] = centerOf(sliceAxis(), Number(slider.value));
    nv.scene.crosshairPos = position;
    showPosition();
    nv.drawScene();
  }

  function fillRuns() {
    const names = cases[Number(element("viewer-case").value)].runs.map((run) => run.name);
    const select = element("viewer-run");
    const previous = select.selectedIndex;
    select.replaceChildren(...names.map((name, number) => new Option(name, String(number))));
    select.selectedIndex = Math.min(Math.max(previous, 0), names.length - 1);
  }

  // one after the other: a second choice must not load into a half-filled viewer
  const reload = () => (loading = loading.then(load).catch(fail));

  function fail(error) {
    element("viewer-message").textContent = `The viewer cannot be shown: ${error.message}`;
  }

  async function start() {
    cases.forEach((item, number) => {
      element("viewer-case").add(new Option(item.name, String(number)));
    });
    fillRuns();
    await nv.attachToCanvas(canvas);
    nv.onLocationChange = showPosition;
    element("viewer-case").addEventListener("change", () => {
      fillRuns();
      reload();
    });
    element("viewer-run").addEventListener("change", reload);
    element("viewer-plane").addEventListener("change", showPlane);
    slider.addEventListener("input", moveToSlice);
    for (const layer of LAYERS) {
      element(`viewer-${layer}`).addEventListener("input", (event) => {
        if (layer in shown) nv.setOpacity(shown[layer], Number(event.target.value) / 100);
      });
    }
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: 1, ArrowRight: 1, PageUp: 5, ArrowDown: -1, ArrowLeft: -1, PageDown: -5 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      slider.value = Number(slider.value) + steps[event.key];
      moveToSlice();
    });
    await reload();
  }
  start().catch(fail);
})();

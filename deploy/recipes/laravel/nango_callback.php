<?php

use App\Http\Controllers\NangoCallbackController;
use Illuminate\Support\Facades\Route;

// @EACH@
Route::match(['GET', 'POST'], '@PATH@', NangoCallbackController::class)
    ->defaults('target', '@TARGET@')->withoutMiddleware('web');
// @END@
